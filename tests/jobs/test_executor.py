"""Execution of jobs in one process: each is taken once, and a bug stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from fanout.core.errors import LeaseLostError
from fanout.jobs import executor
from fanout.jobs.job import JobSpec
from fanout.jobs.manager import JobManager
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.leases import Leases
from tests.support.builders.jobs import make_rows, open_jobs
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


async def test_a_bug_stops_the_job_and_releases_its_lease(upstream: Upstream, tmp_path: Path, log_lines: list[str]) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        spec = JobSpec(models=({"model": "up/ok"},), unattended=True)
        job = await kept.manager.create(spec, make_rows(3))
        # A body that no job of this kind can have.
        async with kept.store.database.write_transaction() as connection:
            await connection.exec_driver_sql("UPDATE items SET body = '[]'")
        await kept.manager.supervisor.run_job(job)
        job = await kept.manager.find_job(job.id)

    assert (job.state, job.owners) == ("stopped", [])
    assert any("job.crashed" in line for line in log_lines)


class LateAnnouncements(JobStore):
    """A store where a job is created, and announced, just when the search for waiting jobs has found none."""

    manager: JobManager
    late: str | None = None

    async def has_unended(self) -> bool:
        found = await super().has_unended()
        if self.late is None:
            self.late = "is being created"
            spec = JobSpec(models=({"model": "up/ok"},), unattended=True)
            self.late = (await self.manager.create(spec, make_rows(1))).id
            self.manager.supervisor.notify()
        return found


async def test_a_job_announced_during_the_search_starts_at_once(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "POLL_INTERVAL_S", 60.0)  # so that only the announcement can start it
    async with open_jobs(upstream.url, tmp_path) as kept:
        store = LateAnnouncements(kept.store.database)
        manager = store.manager = JobManager(store, kept.dispatcher)
        async with store.journal.run():
            supervising = asyncio.create_task(manager.supervisor.run())
            await upstream.wait_for_requests(1)
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)
