"""Places for a job's calls at one account: all of this process, or its part of those of all processes that run the job."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from fanout.limits.shared.share import Backlog, ProcessShare


class Sender(Protocol):
    """Whoever waits for a place."""

    @property
    def wanted(self) -> int:
        """Calls that could begin if there were places."""


@dataclass(slots=True, eq=False)
class AccountSlots:
    """Concurrent calls that the queues of one account share: first come, first served, so that no queue starves."""

    maximum: int
    share: ProcessShare | None = None
    """Of a job that several processes run, where it bounds its calls itself; `None`: this process has all places."""
    closed_because: str | None = None
    """Reason why the account accepts no more calls."""
    in_flight: int = 0
    is_stopped: bool = False
    _waiting: deque[tuple[asyncio.Future[bool], Sender]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if self.share:
            self.share.limiter = self

    async def acquire(self, sender: Sender) -> bool:
        """Wait for a place; return whether there is one: after `stop` nobody gets any."""
        if self.is_stopped:
            return False
        if not self._waiting and self._has_place():
            self._begin()
            return True
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((granted, sender))
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting = deque(one for one in self._waiting if one[0] is not granted)
            elif granted.result():  # given at the same moment: without a release it would be lost
                self.release()
            raise

    def release(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        if self.share and self.is_stopped:  # others wait for it, and nothing follows here
            self.share.wake()
        self.pump()

    def stop(self) -> None:
        """Let nothing more begin: processes that go on get this one's places."""
        self.is_stopped = True
        for granted, _ in self._waiting:
            if not granted.done():
                granted.set_result(False)
        self._waiting.clear()
        if self.share and self.share.is_member:
            self.share.wake()

    def measure_backlog(self) -> Backlog:
        """Return the calls that wait and could start, and those in flight."""
        wanted = sum(max(sender.wanted, 1) for _, sender in self._waiting)
        return Backlog(0, min(wanted, self.maximum), 0, 0, 0, self.in_flight)

    @property
    def has_queue(self) -> bool:
        """Somebody waits for a place."""
        return bool(self._waiting)

    def hold(self, model: str | None, seconds: float, reason: str) -> None:
        """Take over a pause: there are none of a job's own, for those of its accounts hold its calls."""

    def pump(self) -> None:
        """Give the places that are free to those that wait."""
        while self._waiting and self._has_place():
            granted, _ = self._waiting.popleft()
            if not granted.done():
                self._begin()
                granted.set_result(True)

    def _has_place(self) -> bool:
        is_free = self.in_flight < self.maximum
        return is_free and (self.share is None or self.share.has_place(self.in_flight, time.monotonic()))

    def _begin(self) -> None:
        self.in_flight += 1
        if self.share:
            self.share.note_start(self.in_flight)
