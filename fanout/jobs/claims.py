"""Claims: what a process has taken of a job: all of it, by the job's lease, or chunks of it, where several processes share it.

A run of a job is the same with either. What it may read, what it shows with each entry of its journal, how it stays alive and
how it ends are the claim's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import CANCELLED, ENDED_STATES, Fence, InputItem, JobChange, JobState, Place, Standing, Unit

WaitForStore = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Repeats a transaction while the database cannot be used."""


def is_shared(store: JobStore, job: Job) -> bool:
    """Return whether several processes run a job, each some chunks of it.

    Not the jobs that a command runs for its user, for only that command knows when to stop; nor those whose units a provider's
    batch API takes by the ten thousand.
    """
    return store.is_shared and job.spec.unattended and job.spec.via == "live"


class Claim(Protocol):
    """Part of a job that a process has taken, or all of it."""

    is_shared: bool
    """Other processes may run other parts of the job."""

    async def start(self) -> bool:
        """Begin to run the job; return whether there is anything to run."""
        ...

    async def take_places(self, after: int, limit: int) -> range | None:
        """Return the next places in the job's order to be read, behind the last one that was read; none at the end.

        `None`: there are none for now; `on_change` tells that there may be some.
        """
        ...

    def note_read(self, places: range, items: Sequence[InputItem]) -> bool:
        """Count the items that were read at some places; return whether to use them, be there none: else the next are taken."""
        ...

    def add_units(self, item: int, units: Mapping[Place, ModelQueue], closed_because: str | None, left_out: int) -> None:
        """Note the open units of an item, the number of others that are left out, and why some queues are closed."""
        ...

    def drop_units(self, fusions: Sequence[Place], closed_because: str | None) -> None:
        """Forget the units of queues that are closed, and the fusions that need one of them."""
        ...

    def drop_entries(self, is_dropped: Callable[[int], bool]) -> None:
        """Forget the units of entries of which nothing more is to be sent."""
        ...

    def get_fence(self, item: int) -> Fence:
        """Return the lease by which the units of an item are written; raise `LeaseLostError` if they are not had any more."""
        ...

    def begin(self, unit: Unit) -> bool:
        """Note a call; return whether it may be made."""
        ...

    def leave(self, unit: Unit) -> None:
        """Note that a call is not in flight any more."""
        ...

    async def end(self, unit: PendingUnit) -> None:
        """Note that a unit will not be sent again, if its end is recorded."""
        ...

    async def renew(self, rate: float | None, waiting: int) -> Standing | None:
        """Extend the leases; return the state that the job has or is to have, or `None` if another process has taken it."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait until the leases are to be extended again, or something of the job has changed."""
        ...

    def stop(self, state: JobState, reason: str | None) -> None:
        """Take nothing more: the run ends. In a state other than `queued` the whole job is to end."""
        ...

    async def finish(self, state: JobState, reason: str | None) -> bool:
        """Give up what is left, and write the end of the run; return whether the job has ended by it, or is left to others."""
        ...

    async def abandon(self) -> None:
        """Give up what is left after a failure, as far as that can be written."""
        ...


class WholeJob:
    """The whole of a job, by its lease."""

    is_shared = False

    def __init__(self, store: JobStore, job: Job, epoch: int) -> None:
        self._store, self._job, self._epoch = store, job, epoch
        self._fence = Fence(None, epoch)

    async def start(self) -> bool:
        change: JobChange = {"state": "running", "reason": None, "started": self._job.started or time.time()}
        return await self._store.update(self._job.number, change, states=("queued", "running"), epoch=self._epoch)

    async def take_places(self, after: int, limit: int) -> range | None:
        return range(after + 1, after + 1 + limit)

    def note_read(self, places: range, items: Sequence[InputItem]) -> bool:
        return True

    def add_units(self, item: int, units: Mapping[Place, ModelQueue], closed_because: str | None, left_out: int) -> None:
        pass

    def drop_units(self, fusions: Sequence[Place], closed_because: str | None) -> None:
        pass

    def drop_entries(self, is_dropped: Callable[[int], bool]) -> None:
        pass

    def get_fence(self, item: int) -> Fence:
        return self._fence

    def begin(self, unit: Unit) -> bool:
        return True

    def leave(self, unit: Unit) -> None:
        pass

    async def end(self, unit: PendingUnit) -> None:
        pass

    async def renew(self, rate: float | None, waiting: int) -> Standing | None:
        state = await self._store.leases.renew(self._job.number, self._epoch, rate)
        return None if state is None else CANCELLED if state in ("cancelling", "cancelled") else Standing("running")

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def stop(self, state: JobState, reason: str | None) -> None:
        pass

    async def finish(self, state: JobState, reason: str | None) -> bool:
        number, epoch = self._job.number, self._epoch
        ended = time.time() if state in ENDED_STATES else None
        # The owner is cleared in the same write: a job must not look free and running at the same time.
        change: JobChange = {"state": state, "reason": reason, "ended": ended, "owner": None, "rate": None}
        states: Sequence[JobState] = ("queued", "running") if state == "queued" else ()
        if not await self._store.update(number, change, states=states, epoch=epoch):
            # The job was cancelled meanwhile: queued again, it would run on in the next process.
            change |= {**CANCELLED._asdict(), "ended": time.time()}  # type: ignore[typeddict-item]
            await self._store.update(number, change, states=("cancelling",), epoch=epoch)
        return True

    async def abandon(self) -> None:
        """Leave the lease to run out: who failed to write cannot be sure of anything else."""
