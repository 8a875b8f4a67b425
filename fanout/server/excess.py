"""Choice of what must go where accounts share a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Owned(Protocol):
    """Something of an account."""

    @property
    def account_id(self) -> str | None: ...


OwnedT = TypeVar("OwnedT", bound=Owned)


def list_excess(lives: Sequence[OwnedT], most: int, weigh: Callable[[OwnedT], int]) -> list[OwnedT]:
    """Return what must go so that the rest weighs no more than `most`.

    Always the oldest of the account that has the most, so that no account ends what is another's.
    """
    weights: dict[str | None, int] = {}
    by_account: dict[str | None, deque[OwnedT]] = {}
    for live in lives:
        weights[live.account_id] = weights.get(live.account_id, 0) + weigh(live)
        by_account.setdefault(live.account_id, deque()).append(live)
    excess: list[OwnedT] = []
    while sum(weights.values()) > most:
        account = max(weights, key=weights.__getitem__)
        excess.append(by_account[account].popleft())
        weights[account] -= weigh(excess[-1])
    return excess
