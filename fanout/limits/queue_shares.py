"""Shares of a queue: no owner of many waiting calls may take the places of all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure, QueueShare


class QueueShares:
    """The places that owners with a share have taken in one queue. Calls without one are not counted."""

    def __init__(self, places: int) -> None:
        self._places = places
        # Only of owners that wait: keys come and go, and their names must not accumulate.
        self._taken: dict[str, int] = {}

    @contextmanager
    def hold(self, share: QueueShare | None) -> Iterator[None]:
        """Take a place of a share while the context lasts; raise `ProviderError` if all of them are taken."""
        if share is None:
            yield
            return
        taken = self._taken.get(share.owner, 0)
        # At least one, or a small share would be none.
        if taken >= max(int(share.part * self._places), 1):
            message = f"{taken} calls of this key wait already, as many as its share of the queue ({share.part:g}) allows"
            raise ProviderError(Failure("rate_limit", message, code="queue_too_long"))
        self._taken[share.owner] = taken + 1
        try:
            yield
        finally:
            self._taken[share.owner] -= 1
            if not self._taken[share.owner]:
                del self._taken[share.owner]
