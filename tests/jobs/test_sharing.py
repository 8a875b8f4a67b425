"""Jobs that several processes share on PostgreSQL: each unit is recorded once, whichever of them ends, is stopped or sleeps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fanout.jobs.job import Job
from tests.support.builders.job_process import kill, start_worker
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.databases import OutsideConnection
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
ITEMS = 200
"""Four chunks."""
CONCURRENCY = 4
"""Of each process."""


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A job, and the processes that run it."""

    kept: OpenJobs
    job: Job
    workers: Sequence[BaseProcess]
    database: OutsideConnection

    def list_owners(self, condition: str = "ended IS NULL") -> list[str]:
        """Return the processes that have chunks of the job, by their numbers."""
        found = self.database.execute(f"SELECT DISTINCT owner FROM job_chunks WHERE owner IS NOT NULL AND {condition}")
        return [owner.split("|")[2] for (owner,) in found]

    async def wait_until_left_by(self, process: BaseProcess) -> None:
        async with asyncio.timeout(30):
            while str(process.pid) in self.list_owners():
                await asyncio.sleep(0.01)

    async def wait_for_end(self) -> Job:
        async with asyncio.timeout(60):
            while (job := await self.kept.manager.find_job(self.job.id)).state in ("queued", "running", "cancelling"):
                await asyncio.sleep(0.02)
        return job

    async def wait_for_records(self) -> None:
        """Wait until the job is done, and check that each unit is recorded and counted once."""
        job = await self.wait_for_end()
        found = await self.kept.list_results(job)
        progress = await self.kept.manager.read_progress(job.id)
        assert (job.state, job.reason) == ("done", None)
        assert len(found) == len({tuple(row[:3]) for row in found}) == progress.ended == progress.answered == ITEMS
        assert self.database.execute("SELECT count(*) FROM job_chunks") == [(0,)]


@asynccontextmanager
async def open_shared(upstream: Upstream, folder: Path, location: str, model: str, workers: int) -> AsyncGenerator[SharedJob]:
    """Open a job that some processes run, once each of them has a chunk of it; end those that are left."""
    started = [start_worker(upstream.url, folder, location) for _ in range(workers)]
    try:
        async with open_jobs(upstream.url, folder, store=location) as kept:
            with OutsideConnection(location) as database:
                job = await kept.create(ITEMS, model, unattended=True, concurrency=CONCURRENCY)
                shared = SharedJob(kept, job, started, database)
                async with asyncio.timeout(30):
                    while len(shared.list_owners("true")) < workers:
                        await asyncio.sleep(0.01)
                yield shared
    finally:
        for process in started:
            if process.is_alive():
                await kill(process)


async def test_processes_share_a_job_and_send_each_unit_once(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 3) as shared:
        progress = await shared.kept.manager.read_progress(shared.job.id)
        assert progress.job.state == "running"
        assert 1 <= len(progress.workers) <= 3
        await shared.wait_for_records()
    assert len(upstream.requests) == ITEMS


async def test_the_chunks_of_a_killed_process_are_run_by_the_others(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 2) as shared:
        await kill(shared.workers[0])
        await shared.wait_for_records()
    assert ITEMS <= len(upstream.requests) <= ITEMS + CONCURRENCY


async def test_sigterm_hands_chunks_back_once_their_calls_are_recorded(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 2) as shared:
        shared.workers[0].terminate()
        await shared.wait_until_left_by(shared.workers[0])
        await asyncio.to_thread(shared.workers[0].join)
        await shared.wait_for_records()
    assert len(upstream.requests) == ITEMS


async def test_a_process_that_slept_through_its_leases_writes_nothing(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 2) as shared:
        sleeper = shared.workers[0]
        assert sleeper.pid
        os.kill(sleeper.pid, signal.SIGSTOP)
        shared.database.execute(f"UPDATE job_chunks SET lease_until = 0 WHERE owner LIKE '%|{sleeper.pid}|%'")
        await shared.wait_until_left_by(sleeper)  # the other one has taken them
        os.kill(sleeper.pid, signal.SIGCONT)  # its calls have been answered meanwhile, and it writes that
        await shared.wait_for_records()
    assert ITEMS <= len(upstream.requests) <= ITEMS + CONCURRENCY


async def test_a_shared_job_is_cancelled_by_any_process_and_resumed_by_all(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 2) as shared:
        manager = shared.kept.manager
        assert (await manager.cancel(shared.job.id)).job.state == "cancelling"
        job = await shared.wait_for_end()
        assert (job.state, job.reason) == ("cancelled", "it was cancelled")
        sent = len(upstream.requests)
        assert sent == (await manager.read_progress(job.id)).ended < ITEMS
        await manager.resume(job.id)
        await shared.wait_for_records()
    assert len(upstream.requests) == ITEMS
