"""What each account of a job is asked, and when: places, what waits for its time, and the pace of late."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from fanout.batch.pace import Pace
from fanout.schema import Call, Failure
from fanout.store.jobs import Unit

MOST_LATER = 4_096
"""Units of one account that wait to be tried again; while there are so many, nothing new is asked."""
FORGET_S = 20.0
"""Over how long the pace of late is taken."""
Account = tuple[str | None, str | None]
"""Provider and limit group."""
_numbers = count()


@dataclass(slots=True, eq=False)
class Work:
    """A unit that is to be asked."""

    unit: Unit
    call: Call
    attempt: int
    """The number of the next one."""
    closed: int = 0
    """The number of the attempt that ended it, where it is open once more."""
    tries: int = 0
    """Made since this process has it."""
    waits: int = 0
    """How often it was put back."""
    cache_key: bytes | None = None


@dataclass(slots=True, eq=False)
class Lane:
    """One account: what is asked of it, how fast, and what waits."""

    pace: Pace
    feed: AsyncGenerator[Work]
    later: list[tuple[float, int, Work]] = field(default_factory=list)
    """By when they may be tried again (`time.monotonic`)."""
    held: Work | None = None
    """Waits for money."""
    running: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    exhausted: bool = False
    over: str | None = None
    """Why nothing more is sent to this account."""
    useless: dict[str | None, str] = field(default_factory=dict)
    """Models that take no call, and why."""

    def end(self, call: Call, failure: Failure) -> None:
        """No further call is of use."""
        self.useless[call.target.model] = failure.message
        if failure.kind == "quota":
            self.over = failure.message

    def reasons(self) -> list[str]:
        return [self.over] if self.over else list(self.useless.values())

    @property
    def done(self) -> bool:
        """Nothing is left, and nothing is under way."""
        return self.exhausted and not (self.running or self.later or self.held)

    def put_back(self, work: Work, due: float) -> None:
        """To be tried again by then (`time.monotonic`)."""
        heapq.heappush(self.later, (due, next(_numbers), work))

    async def next(self) -> Work | None:
        """What is to be sent now, where there is a place for it: what has waited before what is new."""
        if self.running >= self.pace.limit:
            return None
        if self.held:
            work, self.held = self.held, None
            return work
        if self.later and self.later[0][0] <= time.monotonic():
            return heapq.heappop(self.later)[2]
        if self.exhausted or len(self.later) >= MOST_LATER:
            return None
        found = await anext(self.feed, None)
        self.exhausted = found is None
        return found

    async def change(self) -> None:
        """Waits for something to have changed, or for the next time at which something may be tried again."""
        free = self.running < self.pace.limit and not self.held
        wait_s = max(self.later[0][0] - time.monotonic(), 0) if self.later and free else None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.changed.wait()


class Rate:
    """Ends a second, of late: an average that forgets."""

    __slots__ = ("_at", "_began", "_sum")

    def __init__(self, now: float) -> None:
        self._sum, self._at, self._began = 0.0, now, now

    def add(self, now: float) -> None:
        self._sum = self._sum * math.exp((self._at - now) / FORGET_S) + 1
        self._at = now

    def at(self, now: float) -> float:
        seen_s = FORGET_S * (1 - math.exp((self._began - now) / FORGET_S))  # less than FORGET_S in the beginning
        return self._sum * math.exp((self._at - now) / FORGET_S) / seen_s if seen_s > 0 else 0.0
