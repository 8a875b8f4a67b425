"""Room for things that grow side by side, shared so that they do not wait for each other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

MAX_STALL_S = 5.0
"""Longest wait for room while nothing grows that could give some back."""


class NoRoomError(Exception):
    """There is no room, and none is to be expected."""


@dataclass(eq=False, slots=True)
class Share:
    """What one thing has of the room."""

    owner: int
    """Whoever gives back all of its things together; later ones have higher numbers."""
    units: int = 0
    is_growing: bool = False

    @property
    def is_used(self) -> bool:
        """It has room, or may get some."""
        return self.units > 0 or self.is_growing


class _Waiter(NamedTuple):
    """A thing that waits: the units that it needs now, and all that it may need until it ends."""

    share: Share
    units: int
    most: int
    turn: asyncio.Future[None]


class SharedRoom:
    """Room for growing things; those that find none wait in order.

    While less than half is taken, each takes what it needs. Of the second half, one takes at once all that it may need until it
    ends: things that have a part each and wait for the rest would wait for each other. What was not needed goes back.

    What has ended keeps its room until its owner gives it back, and the owner may be waiting for another of its things. So
    where nothing grows, and nothing has been given back for `MAX_STALL_S`, whatever waits for the latest owner fails.

    Args:
        limit: the units that all may have together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._growing = 0
        self._waiting: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._moved_s = 0.0
        """When something was last given back, grew or failed."""

    def take_now(self, share: Share, units: int, most: int) -> bool:
        """Take room if it is free and nothing is waiting; return whether it was. See `take`."""
        return not self._waiting and self._grant(share, units, self._bound(share, units, most))

    async def take(self, share: Share, units: int, most: int) -> None:
        """Take room once it is free.

        Args:
            share: of the thing that grows.
            units: that it needs now.
            most: that it may need until it ends, these included.

        Raises:
            NoRoomError: there is none, and none is to be expected.
        """
        if self.take_now(share, units, most):
            return
        if units > self.limit:
            raise NoRoomError
        self._stop_growing(share)
        if not self._waiting:
            self._moved_s = time.monotonic()
        turn = asyncio.get_running_loop().create_future()
        waiter = _Waiter(share, units, self._bound(share, units, most), turn)
        self._waiting.append(waiter)
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._serve()  # later ones may need less
            raise

    def take_whole(self, units: int) -> bool:
        """Take room for a thing that grows no more, if there is plenty; return whether it was taken. See `give_back`."""
        if self._waiting or self.used + units > self.limit // 2:
            return False
        self.used += units
        return True

    def give_back(self, units: int) -> None:
        """Give back what a thing had that grew no more."""
        self.used -= units
        if self._waiting:
            self._moved_s = time.monotonic()
            self._serve()

    def end(self, share: Share, units: int) -> None:
        """Give back what a thing that has ended has beyond the units that it needs."""
        self._stop_growing(share)
        unused = max(share.units - units, 0)
        share.units -= unused
        self.used -= unused
        if unused:
            self._moved_s = time.monotonic()
        if self._waiting:
            self._serve()

    def _bound(self, share: Share, units: int, most: int) -> int:
        return max(units, min(most, self.limit - share.units))

    def _grant(self, share: Share, units: int, most: int) -> bool:
        if self.used + units > self.limit // 2:
            units = most
        if self.used + units > self.limit:
            return False
        self.used += units
        share.units += units
        self._growing += not share.is_growing
        share.is_growing = True
        return True

    def _stop_growing(self, share: Share) -> None:
        if share.is_growing:
            share.is_growing = False
            self._growing -= 1
            self._moved_s = time.monotonic()

    def _serve(self) -> None:
        while self._waiting:
            waiter = self._waiting[0]
            # One that was cancelled in this very moment has its place still.
            if not waiter.turn.done():
                if not self._grant(waiter.share, waiter.units, waiter.most):
                    return
                waiter.turn.set_result(None)
            self._waiting.popleft()

    def _watch(self) -> None:
        """Have the wait ended if it becomes a stall."""
        if self._timer is None and self._waiting:
            loop = self._waiting[0].turn.get_loop()
            self._timer = loop.call_later(MAX_STALL_S, self._fail_where_stalled)

    def _fail_where_stalled(self) -> None:
        self._timer = None
        if self._waiting and not self._growing and time.monotonic() - self._moved_s >= MAX_STALL_S * 0.99:
            latest = max(waiter.share.owner for waiter in self._waiting)
            for waiter in self._waiting:
                if waiter.share.owner == latest and not waiter.turn.done():
                    waiter.turn.set_exception(NoRoomError())
            self._waiting = deque(waiter for waiter in self._waiting if waiter.share.owner != latest)
            self._moved_s = time.monotonic()
            self._serve()
        self._watch()
