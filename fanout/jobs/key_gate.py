"""The limits of the key that made a job, as jobs see them: the server has the keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from fanout.core.schema import Call, Failure, Outcome


class KeyGate(Protocol):
    """The limits of one key."""

    reason: str | None
    """The sentence about why money was last refused; `None`: it was not."""

    @property
    def has_budget(self) -> bool:
        """True if the price of every call must be known."""

    def restrict(self, call: Call) -> Call:
        """Return a call, refused if the key may not make it."""
        ...

    def reserve(self, cost_usd: float) -> bool:
        """Set the most that a call can cost aside; return whether the budget has as much."""
        ...

    def try_start(self, call: Call) -> float | None:
        """Take a place for a call and return 0, or the seconds until there may be one; infinite: it needs more than all.

        `None`: the key opens nothing any more.
        """
        ...

    def settle(self, call: Call | None, reserved_usd: float, outcome: Outcome | None) -> None:
        """Give back what was set aside for a call, and its place, if it has taken one; count what it has used."""
        ...


MAX_WAIT_S = 1.0
"""The longest time between looks whether a job that waits for its key's limits was stopped."""
NEVER_FITS = Failure(
    "bad_request", "its tokens are more than the key may use in a minute", code="rate_limit_exceeded", param="max_tokens"
)


async def wait_for_start(gate: KeyGate, call: Call, is_stopped: Callable[[], bool], stop: Callable[[], None]) -> Call:
    """Wait until the limits of a key let a call start, or the job is stopped; return it, refused if they never let it.

    Where the key has ended meanwhile, the job is stopped.
    """
    while not is_stopped() and (wait_s := gate.try_start(call)) != 0:
        if wait_s is None:
            stop()
            break
        if wait_s == math.inf:
            return replace(call, refusal=NEVER_FITS)
        await asyncio.sleep(min(wait_s, MAX_WAIT_S))
    return call


OpenKeyGate = Callable[[str], Awaitable[KeyGate]]
"""Opens the gate of a key, by its id; raises `StoreError` if what it has used cannot be read."""
