"""Model queues: the units that wait for one model of one account; retries come first."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from fanout.core.schema import Failure
from fanout.jobs.account_slots import AccountSlots
from fanout.jobs.adaptive_concurrency import AdaptiveConcurrency
from fanout.jobs.item_runs import ItemRuns
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.prefix_gate import PrefixGate

MAX_DELAYED_UNITS = 4_096
"""Units of one model that wait for their retry; at this number, no new units are sent."""
QueueKey = tuple[str | None, str | None, str | None]
"""Provider, limit group and upstream model."""
_numbers = count()  # breaks ties between equal times, because units cannot be compared


@dataclass(slots=True, eq=False)
class ModelQueue:
    """Units of one model of one account, and their concurrency. Each queue runs independently, so none blocks another."""

    account: AccountSlots
    key: QueueKey = (None, None, None)
    entries: Sequence[int] | None = None
    """Entries of the job in this queue; `None` if each row names its own model."""
    buffer: deque[PendingUnit] = field(default_factory=deque)
    """New units, already planned."""
    backlog: ItemRuns = field(default_factory=ItemRuns)
    """Numbers of the rows after those of `buffer`, which had no room for them."""
    concurrency: AdaptiveConcurrency = field(init=False)
    prefixes: PrefixGate = field(init=False)
    delayed: list[tuple[float, int, PendingUnit]] = field(default_factory=list)
    """Heap of the units to retry, by their earliest time (`time.monotonic`)."""
    held: PendingUnit | None = None
    """Unit that waits for calls in flight to release money."""
    running: int = 0
    waiting: int = 0
    """Fusions whose members have not ended yet."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    goes_in_batches: bool = False
    """New units go to the provider's batch API; here only those are sent that it cannot take."""
    changed_for_batches: asyncio.Event = field(default_factory=asyncio.Event)
    exhausted: bool = False
    is_ahead: bool = False
    """It has sent as much as a job that may stop early sends for now."""
    useless_because: str | None = None
    """Reason why further calls to the model are useless."""

    def __post_init__(self) -> None:
        self.concurrency, self.prefixes = AdaptiveConcurrency(self.account.maximum), PrefixGate()

    @property
    def closed_because(self) -> str | None:
        """Reason why nothing more is sent."""
        return self.account.closed_because or self.useless_because

    @property
    def is_done(self) -> bool:
        """Nothing is left, nothing is in flight, and no fusion waits."""
        is_left = self.running or self.delayed or self.held or self.waiting or self.goes_in_batches or self.prefixes.waiting
        return self.exhausted and not is_left

    @property
    def takes_new(self) -> bool:
        """The queue accepts units that have not been sent yet."""
        # Bounded, because a model that refuses every call would pull the whole input into memory.
        return not (self.exhausted or self.is_ahead or self.goes_in_batches) and len(self.delayed) < MAX_DELAYED_UNITS

    @property
    def wanted(self) -> int:
        """Calls that could begin if the account had places."""
        return self.concurrency.limit - self.running

    @property
    def may_send(self) -> bool:
        """There may be a unit to send now."""
        return self.wanted > 0 and (self.takes_new or self.held is not None or self._has_due())

    def close(self, failure: Failure) -> None:
        """Send nothing more to this model, or after a `quota` failure to its whole account."""
        self.useless_because = failure.message
        if failure.kind == "quota":
            self.account.closed_because = failure.message

    def delay(self, unit: PendingUnit, due: float) -> None:
        """Delay a unit until `due` (`time.monotonic`)."""
        heapq.heappush(self.delayed, (due, next(_numbers), unit))

    def put_first(self, unit: PendingUnit) -> None:
        """Put a unit before all that is new."""
        self.delay(unit, time.monotonic())
        self.changed.set()

    def take_waiting(self) -> PendingUnit | None:
        """Return the next unit that has waited for money or for its retry."""
        if self.held:
            unit, self.held = self.held, None
            return unit
        return heapq.heappop(self.delayed)[2] if self._has_due() else None

    async def wait_for_change(self) -> None:
        """Wait until the queue changes, or the next retry is due."""
        # A full queue is woken by the end of a call; a timer would only make it spin.
        is_free = self.wanted > 0 and not self.held
        if not (self.delayed and is_free):
            await self.changed.wait()
            return
        wait_s = max(self.delayed[0][0] - time.monotonic(), 0)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.changed.wait()

    def _has_due(self) -> bool:
        return bool(self.delayed and self.delayed[0][0] <= time.monotonic())
