"""Scheduler of one job's units: chooses the next unit of each model within the account's concurrency and the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from fanout.core.schema import Call
from fanout.core.threads import run_in_thread
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.fusing import fuse
from fanout.jobs.claims import Claim
from fanout.jobs.fusion_gate import FusionGate
from fanout.jobs.job import Job, RequestBuilder
from fanout.jobs.model_queues import ModelQueue, QueueKey
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.queue_setup import make_queues
from fanout.jobs.settlement import UnitSettlement
from fanout.jobs.unit_feed import UnitFeed
from fanout.jobs.unit_journal import UnitJournal
from fanout.jobs.unit_planner import UnitPlanner
from fanout.limits.registry import Sharing
from fanout.store.jobs.records import InputChunk, InputItem, Place

RunInBatches = Callable[[ModelQueue], Awaitable[None]]
"""Runs the units of a queue through its provider's batch API."""
RunUnit = Callable[[ModelQueue, PendingUnit, float], Awaitable[None]]
"""Runs a unit and settles the money reserved for it."""


class UnitScheduler:
    """The model queues of one job."""

    def __init__(
        self,
        job: Job,
        dispatcher: Dispatcher,
        builder: RequestBuilder,
        settlement: UnitSettlement,
        claim: Claim,
        journal: UnitJournal,
        *,
        run_unit: RunUnit,
        run_in_batches: RunInBatches,
    ) -> None:
        self._job, self._dispatcher, self._settlement, self._claim = job, dispatcher, settlement, claim
        self._planner = UnitPlanner(job, dispatcher, builder)
        self._journal, self._run_unit, self._run_in_batches = journal, run_unit, run_in_batches
        self.is_stopped = self.needs_all = False
        """The latter: no model can do without the others."""
        self.running = 0
        """Calls in flight."""
        self._gate = FusionGate()
        self._sharing = dispatcher.limiters.sharing if claim.is_shared else None
        self._queues = make_queues(job, dispatcher.settings, self._gate, self._sharing)
        self._held: set[ModelQueue] = set()
        """Queues with a unit that waits for money."""
        self._feed = UnitFeed(job, list(self._queues.values()), journal.read_chunk, journal.read_items, self._plan_item)
        self._feed.is_full = lambda: self._gate.is_full

    def set_limit(self, limit: Callable[[], int]) -> None:
        """Send items as far as the limit allows; `continue_to_limit` tells that it has grown."""
        self._feed.limit = limit

    def continue_to_limit(self) -> None:
        for queue in self._queues.values():
            queue.is_ahead = False
        _wake(self._queues.values())

    def drop_entry(self, entry: int) -> None:
        """Send nothing more of an entry, unless it is a member of a fusion that goes on."""
        self._gate.dropped.add(entry)
        self._claim.drop_entries(self._gate.is_dropped)

    @property
    def delayed(self) -> int:
        """Units that wait for their retry."""
        return sum(len(queue.delayed) for queue in self._queues.values())

    @property
    def closed_because(self) -> str | None:
        """Why some models or accounts take no more calls."""
        return "; ".join(dict.fromkeys(filter(None, (queue.closed_because for queue in self._queues.values())))) or None

    @property
    def takes_nothing(self) -> bool:
        """No model takes any more calls; or one does not, and all are needed."""
        return (any if self.needs_all else all)(queue.closed_because for queue in self._queues.values())

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Return a task for each queue, which ends when the queue is done or closed."""
        queues = list(self._queues.values())
        batches = [group.create_task(_drive_batches(queue, self._run_in_batches)) for queue in queues if queue.goes_in_batches]
        return [*batches, *(group.create_task(self._drive(queue)) for queue in queues)]

    def stop(self) -> None:
        self.is_stopped = True
        self._feed.close()
        for queue in self._queues.values():
            queue.changed_for_batches.set()
            queue.account.stop()
        _wake(self._queues.values())

    def close(self) -> None:
        """Leave the places of the job to the other processes that run it."""
        _leave_accounts(self._queues.values(), self._sharing)

    async def _drive(self, queue: ModelQueue) -> None:
        async with asyncio.TaskGroup() as group:
            while not (self.is_stopped or queue.closed_because):
                queue.changed.clear()  # before the check: a change between the two would be missed, and the queue would stall
                if queue.may_send and (await self._send_next(queue, group) or not (queue.held or queue.is_done)):
                    continue
                if queue.is_done:
                    return
                await queue.wait_for_change()
        if queue.closed_because:
            self._claim.drop_units(self._gate.drop_closed(), self.closed_because)
            self.continue_to_limit()
        if queue.closed_because and self.needs_all:
            # The others would wait for ever for items that this model no longer answers.
            self.stop()

    async def _send_next(self, queue: ModelQueue, group: asyncio.TaskGroup) -> bool:
        """Start the next unit of a queue; return whether there was one to start."""
        # The slot first, so that no chosen unit waits behind units of other models.
        if not await queue.account.acquire(queue):
            return False
        chosen = None
        try:
            chosen = await self._choose(queue)
        finally:
            if chosen is None:  # also after a failure: a lost slot would be missing until the run ends
                queue.account.release()
        if chosen:
            queue.running += 1
            self.running += 1
            group.create_task(self._run(queue, *chosen))
        return chosen is not None

    async def _run(self, queue: ModelQueue, unit: PendingUnit, reserved_usd: float) -> None:
        try:
            await self._run_unit(queue, unit, reserved_usd)
            await self.release_fusions(unit)
        finally:
            for other in queue.prefixes.release(unit):
                queue.put_first(other)
            queue.running -= 1
            self.running -= 1
            queue.account.release()  # which wakes the next queue of the account
            # Only those that may continue: to wake hundreds of queues would cost more than the call itself.
            _wake(self._queues.values() if queue.closed_because else (queue, *self._held))

    async def release_fusions(self, ended: PendingUnit) -> None:
        """Put the fusions for which this unit was the last member into their queues, if it has ended."""
        if not ended.has_ended:
            return
        was_full = self._gate.is_full
        for (number, entry, repeat), queue in self._gate.record_end(ended.unit):
            chunk = await self._journal.read_items([number], [entry])
            for unit in (unit for item in chunk.items for unit in self._planner.plan_item(item, chunk, [entry])):
                if unit.unit.repeat == repeat:
                    queue.put_first(unit)
            queue.waiting -= 1
        if was_full and not self._gate.is_full:
            self.continue_to_limit()

    async def _choose(self, queue: ModelQueue) -> tuple[PendingUnit, float] | None:
        """Return the next unit to send, and the money reserved for it."""
        if self.is_stopped or queue.closed_because:
            return None
        while unit := queue.take_waiting() or (await self._feed.take(queue) if queue.takes_new else None):
            if not self._gate.is_dropped(unit.unit.entry) and queue.prefixes.admit(unit):
                break
        self._held.discard(queue)
        if unit is None:
            return None
        if unit.call.fusion and not unit.call.fusion.members:
            # Not when it was planned: what waits in a queue holds its question alone.
            unit.call = await fuse(unit.call, await self._journal.read_members(unit, unit.call.fusion.of))
            unit.cache_key = await run_in_thread("calls", self._planner.make_cache_key, unit.call)
        reserved = self._settlement.reserve(queue, unit)
        if reserved is not None:
            return unit, reserved
        if queue.closed_because:
            return None
        # Calls in flight may cost less than reserved; the budget is spent only when none is left.
        queue.held = unit
        self._held.add(queue)
        if not self.running:
            self._settlement.stop_without_money()
        return None

    async def take_for_batch(self, queue: ModelQueue) -> PendingUnit | None:
        """Return the next new unit of a queue that goes in batches."""
        unit = await self._feed.take(queue)
        while unit and self._gate.is_dropped(unit.unit.entry):
            unit = await self._feed.take(queue)
        return unit

    def plan_units(self, queue: ModelQueue, places: Sequence[Place]) -> Awaitable[dict[Place, PendingUnit]]:
        """Return those of some units that have not ended, planned anew."""
        return self._planner.plan_places(places, queue.entries, self._journal.read_items)

    def _plan_item(
        self, item: InputItem, chunk: InputChunk, entries: Sequence[int] | None
    ) -> Iterator[tuple[ModelQueue, PendingUnit]]:
        """Yield the open units of an item, each with its queue; limited to the given entries, if any."""
        fusions: list[PendingUnit] = []
        open_units: dict[Place, ModelQueue] = {}
        for unit in self._planner.plan_item(item, chunk, entries):
            if unit.call.fusion:
                fusions.append(unit)
                continue
            open_units[unit.unit[1:]] = queue = _find_queue(self._queues, unit.call)
            yield queue, unit
        # Those of an item that is read again, for a queue that had no room, are in the gate already.
        for fusion in fusions if entries is None else ():
            queue = _find_queue(self._queues, fusion.call)
            if self._gate.hold(fusion, queue, open_units):
                queue.put_first(fusion)
        if entries is None:
            held = {
                fusion.unit[1:]: _find_queue(self._queues, fusion.call)
                for fusion in fusions
                if self._gate.holds(fusion.unit[1:])
            }
            wanted = {place: queue for place, queue in (open_units | held).items() if not self._gate.is_dropped(place[1])}
            self._claim.add_units(item.item, wanted, self.closed_because, len(fusions) - len(held))


def _wake(queues: Iterable[ModelQueue]) -> None:
    """Make queues check again whether they may send."""
    for queue in queues:
        queue.changed.set()


def _find_queue(queues: Mapping[QueueKey, ModelQueue], call: Call) -> ModelQueue:
    # A unit whose model has no queue goes into the first queue, so that it is not lost.
    target = (call.target.provider, call.target.limit_group, call.target.model)
    return queues.get(target) or next(iter(queues.values()))


async def _drive_batches(queue: ModelQueue, run_in_batches: RunInBatches) -> None:
    try:
        await run_in_batches(queue)
    finally:
        queue.goes_in_batches = False
        queue.changed.set()


def _leave_accounts(queues: Iterable[ModelQueue], sharing: Sharing | None) -> None:
    for share in {queue.account.share for queue in queues}:
        if share and sharing:
            sharing.leave(share)
