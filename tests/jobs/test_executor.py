"""Executor of jobs: taking a job, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from fanout.core.errors import LeaseLostError
from fanout.jobs.manager import JobManager
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.leases import Leases
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


class InterruptedLeases(Leases):
    """Leases where a job is cancelled just when it has been taken."""

    manager: JobManager

    async def acquire(self, number: int, owner: str, *, dead_owners: Iterable[str] = ()) -> int | None:
        epoch = await super().acquire(number, owner, dead_owners=dead_owners)
        job = next(job for job in await self.manager.list_jobs(limit=10) if job.number == number)
        if job.state == "queued":
            await self.manager.cancel(job.id)
        return epoch


async def test_a_cancellation_while_a_job_is_being_taken_is_not_lost(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        store = JobStore(kept.store.database)
        store.leases = leases = InterruptedLeases(kept.store.database)
        manager = leases.manager = JobManager(store, kept.dispatcher)
        async with store.journal.run():
            job = await kept.create(5, "up/ok")
            job = await manager.run(job.id)

    assert job.state == "cancelled"
    assert upstream.requests == []


async def test_a_process_does_not_run_the_same_job_twice_at_once(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(10, "up/sleep-0.1")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(1)
        with pytest.raises(LeaseLostError):
            await kept.manager.run(job.id)
        assert (await running).state == "done"

    assert len(upstream.requests) == 10
