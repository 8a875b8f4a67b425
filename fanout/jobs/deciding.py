"""Decision of a job that stops as soon as its answer is known: by this process alone, or by one of those that share the job."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from fanout.core.errors import LeaseLostError, StoreClosedError, StoreError
from fanout.core.threads import run_in_thread
from fanout.jobs.job import Job
from fanout.jobs.scheduler import UnitScheduler
from fanout.jobs.stopping import StoppingWatch
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Unit
from fanout.store.jobs.watches import UnitEnd, WatchState
from fanout.store.usage import ANSWERED

LOOK_INTERVAL_S = 0.25
"""The longest time between looks of the process that decides for all that share a job."""
PAUSE_S = 0.1
"""The shortest: it looks when units of its own have ended."""
READ_INTERVAL_S = 0.5
"""Time between looks of the others whether it has."""
TAKE_OVER_INTERVAL_S = 2.0
"""Time between searches for parts of the job that a dead process has left, while all wait for them."""
COUNT_INTERVAL_S = 1.0
"""Time between counts of the processes that share the job."""
ITEMS_AT_ONCE = 1_000


class Decider:
    """The decision on one job, as one run of it sees it. Without a watch it does nothing."""

    def __init__(
        self,
        store: JobStore,
        job: Job,
        watch: StoppingWatch | None,
        scheduler: UnitScheduler,
        stop: Callable[[str], None],
        *,
        is_shared: bool = False,
    ) -> None:
        """Create it. A run that shares its job sends nothing before it has looked, in `run`.

        Args:
            store: of the job.
            job: the job.
            watch: on it.
            scheduler: of the run.
            stop: stops the job, which is decided, with a sentence.
            is_shared: other processes run parts of the job.
        """
        self._store, self._job, self._watch, self._scheduler, self._stop = store, job, watch, scheduler, stop
        self._owner = secrets.token_hex(8)
        self._is_shared = is_shared and watch is not None
        self._looking, self._due = asyncio.Lock(), asyncio.Event()
        self._dropped: set[int] = set()
        self._reach, self._continued_at = 0, time.monotonic()
        self._workers, self._counted_at = 1, -math.inf

    @property
    def reach(self) -> int:
        """Number of items, in the job's order, that may be sent by now."""
        return self._reach if self._is_shared or self._watch is None else self._watch.reach(1)

    async def reconsider(self) -> None:
        """Look whether the job is decided, as far as it has come; drop models that have lost."""
        if self._watch is None or self._is_shared:
            self._due.set()
            return
        async with self._looking:
            await self._look(self._watch)
        self._scheduler.continue_to_limit()

    @asynccontextmanager
    async def run(self, group: asyncio.TaskGroup) -> AsyncGenerator[None]:
        """Take part in the decision, where several processes run the job."""
        if not self._is_shared or self._watch is None:
            yield
            return
        task = group.create_task(self._keep(self._watch))
        try:
            yield
        finally:
            task.cancel()
            with suppress(StoreError):  # then its lease runs out
                await self._store.watches.leave(self._job.number, self._owner)

    async def _keep(self, watch: StoppingWatch) -> None:
        while True:
            is_own = False
            try:
                is_own = await self._take_part(watch)
            except (LeaseLostError, StoreClosedError):
                raise
            except StoreError as error:
                log.warning("job.look_failed", job=self._job.id, reason=str(error))
            await self._pause() if is_own else await asyncio.sleep(READ_INTERVAL_S)

    async def _pause(self) -> None:
        await asyncio.sleep(PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_INTERVAL_S):
                await self._due.wait()
        self._due.clear()

    async def _take_part(self, watch: StoppingWatch) -> bool:
        """Look for all, or read what another one has found; return whether this one looks."""
        state = await self._store.watches.join(self._job.number, self._owner)
        if state.is_own:
            await self._catch_up(watch, state.reach)
            decision = await self._look(watch)
            reach = max(state.reach, watch.reach(await self._count_workers()))
            found = WatchState(True, reach, sorted(self._dropped), decision)
            if found != state:
                await self._store.watches.publish(self._job.number, self._owner, found)
            state = found
        for entry in set(state.dropped) - self._dropped:
            self._drop(entry)
        if state.decision:
            self._stop(state.decision)
        now = time.monotonic()
        if state.reach > self._reach or now - self._continued_at > TAKE_OVER_INTERVAL_S:
            self._reach, self._continued_at = max(state.reach, self._reach), now
            self._scheduler.continue_to_limit()
        return state.is_own

    async def _count_workers(self) -> int:
        if time.monotonic() - self._counted_at > COUNT_INTERVAL_S:
            self._workers, self._counted_at = await self._store.watches.count_workers(self._job.number), time.monotonic()
        return self._workers

    async def _look(self, watch: StoppingWatch) -> str | None:
        """Look at what has ended; return the sentence if the job is decided."""
        for step in await run_in_thread("reports", watch.look) if watch.is_due else ():
            log.info("job.decided", job=self._job.id, sentence=step.sentence, is_final=step.is_final)
            if step.dropped_entry is not None:
                self._drop(step.dropped_entry)
            if step.is_final:
                self._stop(step.sentence)
        return watch.final.sentence if watch.final else None

    def _drop(self, entry: int) -> None:
        self._dropped.add(entry)
        self._scheduler.drop_entry(entry)

    async def _catch_up(self, watch: StoppingWatch, reach: int) -> None:
        """Read what other processes have recorded since the last look, as far as there is no gap."""
        while (first := watch.prefix) < reach:
            numbers = watch.order[first : min(first + ITEMS_AT_ONCE, reach)]
            ends = await self._store.watches.list_ends(self._job.number, numbers, watch.scorer)
            await run_in_thread("reports", _record, watch, self._job.number, ends)
            if watch.prefix < first + len(numbers):
                return


def _record(watch: StoppingWatch, number: int, ends: Sequence[UnitEnd]) -> None:
    for end in ends:
        unit = Unit(number, end.item, end.entry, end.repeat)
        watch.record(unit, [end.score] if end.score else (), answered=end.result == ANSWERED)
