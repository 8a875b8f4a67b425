"""Model queues: the units that wait for one model of one account, those to be retried first."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from fanout.core.schema import Call, Failure
from fanout.jobs.adaptive_concurrency import AdaptiveConcurrency
from fanout.jobs.item_runs import ItemRuns
from fanout.store.jobs.records import Unit

MAX_DELAYED_UNITS = 4_096
"""Units of one model that wait for their retry; while there are so many, nothing new is sent."""
QueueKey = tuple[str | None, str | None, str | None]
"""Provider, limit group and upstream model."""
_numbers = count()  # between equal times: units cannot be compared


@dataclass(slots=True, eq=False)
class PendingUnit:
    """A unit to be sent."""

    unit: Unit
    call: Call
    attempt: int
    """Number of the next attempt."""
    closed: int = 0
    """Number of the attempt that ended it before it was reopened."""
    tries: int = 0
    """Attempts that this process has made."""
    waits: int = 0
    """Times it was put back because of its account's rate limit."""
    row_bytes: int = 0
    """Length of its row as it is stored."""
    cache_key: bytes | None = None
    body: str = ""
    """JSON: its item, where the job's scorers need it."""


@dataclass(slots=True, eq=False)
class AccountSlots:
    """The calls at once that the queues of one account share."""

    maximum: int
    closed_because: str | None = None
    """Why the account takes no more calls."""
    slots: asyncio.Semaphore = field(init=False)
    """First come, first served: no queue starves beside another."""

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.maximum)


@dataclass(slots=True, eq=False)
class ModelQueue:
    """Units of one model of one account, and their concurrency. Each queue runs on its own: none holds another back."""

    account: AccountSlots
    entries: Sequence[int] | None = None
    """Entries of the job that go here; `None`: any may, for each row names its own model."""
    buffer: deque[PendingUnit] = field(default_factory=deque)
    """New units that are planned already."""
    backlog: ItemRuns = field(default_factory=ItemRuns)
    """Rows behind those of `buffer`, which were read when it had no room for them."""
    concurrency: AdaptiveConcurrency = field(init=False)
    delayed: list[tuple[float, int, PendingUnit]] = field(default_factory=list)
    """Heap of the units to be retried, by the time from which they may be (`time.monotonic`)."""
    held: PendingUnit | None = None
    """Unit that waits until there is money for it."""
    running: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    exhausted: bool = False
    useless_because: str | None = None
    """Why no further call to the model is of use."""

    def __post_init__(self) -> None:
        self.concurrency = AdaptiveConcurrency(self.account.maximum)

    @property
    def closed_because(self) -> str | None:
        """Why nothing more is sent."""
        return self.account.closed_because or self.useless_because

    @property
    def is_done(self) -> bool:
        """Nothing is left, and nothing is in flight."""
        return self.exhausted and not (self.running or self.delayed or self.held)

    @property
    def takes_new(self) -> bool:
        """It may be given units that were not sent yet."""
        # A model that refuses everything would else pull its whole input into memory.
        return not self.exhausted and len(self.delayed) < MAX_DELAYED_UNITS

    @property
    def may_send(self) -> bool:
        """There may be a unit to send now."""
        return self.running < self.concurrency.limit and (self.takes_new or self.held is not None or self._has_due())

    def close(self, failure: Failure) -> None:
        """Send nothing more to this model or, where the failure is a quota, to its account."""
        self.useless_because = failure.message
        if failure.kind == "quota":
            self.account.closed_because = failure.message

    def delay(self, unit: PendingUnit, due: float) -> None:
        """Put a unit back, to be retried from `due` on (`time.monotonic`)."""
        heapq.heappush(self.delayed, (due, next(_numbers), unit))

    def take_waiting(self) -> PendingUnit | None:
        """Return the next unit that has waited: for money, or for its retry."""
        if self.held:
            unit, self.held = self.held, None
            return unit
        return heapq.heappop(self.delayed)[2] if self._has_due() else None

    async def wait_for_change(self) -> None:
        """Wait until something has changed, or the next unit may be retried."""
        # A full queue is woken by the end of a call; a timer would only make it spin.
        is_free = self.running < self.concurrency.limit and not self.held
        wait_s = max(self.delayed[0][0] - time.monotonic(), 0) if self.delayed and is_free else None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.changed.wait()

    def _has_due(self) -> bool:
        return bool(self.delayed and self.delayed[0][0] <= time.monotonic())
