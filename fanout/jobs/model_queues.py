"""What each model of a job is asked, and when: the places of its account, what waits for its time, the pace of late."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from fanout.core.schema import Call, Failure
from fanout.jobs.adaptive_concurrency import AdaptiveConcurrency
from fanout.store.jobs.records import Unit

MAX_DELAYED_UNITS = 4_096
"""Units of one model that wait to be tried again; while there are so many, nothing new is asked."""
FORGET_S = 20.0
"""Over how long the pace of late is taken."""
QueueKey = tuple[str | None, str | None, str | None]
"""Provider, limit group and upstream model."""
_numbers = count()


@dataclass(slots=True, eq=False)
class PendingUnit:
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
class AccountSlots:
    """What the lanes of one account share."""

    most: int
    """Calls at once."""
    over: str | None = None
    """Why it takes no more."""
    places: asyncio.Semaphore = field(init=False)
    """First come, first served: no lane starves beside another."""

    def __post_init__(self) -> None:
        self.places = asyncio.Semaphore(self.most)


@dataclass(slots=True, eq=False)
class ModelQueue:
    """One model of one account: what is asked of it, how fast, and what waits. What it does holds no other lane back."""

    account: AccountSlots
    feed: AsyncGenerator[PendingUnit]
    pace: AdaptiveConcurrency = field(init=False)
    later: list[tuple[float, int, PendingUnit]] = field(default_factory=list)
    """By when they may be tried again (`time.monotonic`)."""
    held: PendingUnit | None = None
    """Waits for money."""
    running: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    exhausted: bool = False
    useless: str | None = None
    """Why no further call is of use."""

    def __post_init__(self) -> None:
        self.pace = AdaptiveConcurrency(self.account.most)

    @property
    def over(self) -> str | None:
        """Why nothing more is sent."""
        return self.account.over or self.useless

    def end(self, failure: Failure) -> None:
        """No further call is of use: of this model, or with `quota` of its account."""
        self.useless = failure.message
        if failure.kind == "quota":
            self.account.over = failure.message

    @property
    def done(self) -> bool:
        """Nothing is left, and nothing is under way."""
        return self.exhausted and not (self.running or self.later or self.held)

    def put_back(self, work: PendingUnit, due: float) -> None:
        """To be tried again by then (`time.monotonic`)."""
        heapq.heappush(self.later, (due, next(_numbers), work))

    @property
    def ready(self) -> bool:
        """There may be something to send now."""
        if self.running >= self.pace.limit:
            return False
        new = not self.exhausted and len(self.later) < MAX_DELAYED_UNITS
        return new or self.held is not None or bool(self.later and self.later[0][0] <= time.monotonic())

    async def next(self) -> PendingUnit | None:
        """What is to be sent now: what has waited before what is new."""
        if self.held:
            work, self.held = self.held, None
            return work
        if self.later and self.later[0][0] <= time.monotonic():
            return heapq.heappop(self.later)[2]
        if self.exhausted or len(self.later) >= MAX_DELAYED_UNITS:
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


class Throughput:
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
