"""Jobs that several processes share on PostgreSQL: each unit is recorded once, whichever of them ends, is stopped or sleeps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from asyncpg.exceptions import LockNotAvailableError

from fanout.jobs.job import Job
from fanout.store.jobs.records import ENDED_STATES
from tests.support.builders.job_process import kill, start_worker
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.databases import OutsideConnection
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
ITEMS = 150
"""Three chunks."""
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


async def test_others_go_on_with_what_a_killed_and_a_stopped_process_had(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 3) as shared:
        killed, stopped, _ = shared.workers
        stopped.terminate()
        await kill(killed)
        await asyncio.to_thread(stopped.join)
        assert stopped.exitcode == 0
        assert str(stopped.pid) not in shared.list_owners()  # it gave back what it had, once its calls were recorded
        await shared.wait_for_records()
    assert ITEMS <= len(upstream.requests) <= ITEMS + CONCURRENCY


async def test_a_process_that_slept_through_its_leases_writes_nothing(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_shared(upstream, tmp_path, location, "up/sleep-0.05", 2) as shared:
        sleeper = shared.workers[0]
        assert sleeper.pid
        await put_to_sleep(sleeper.pid, shared)
        await shared.wait_until_left_by(sleeper)  # the other one has taken them
        os.kill(sleeper.pid, signal.SIGCONT)  # its calls have been answered meanwhile, and it writes that
        await shared.wait_for_records()
    assert ITEMS <= len(upstream.requests) <= ITEMS + CONCURRENCY


async def put_to_sleep(pid: int, shared: SharedJob) -> None:
    """Stop a process, and end its leases; again later if it was stopped within a transaction that has them locked."""
    shared.database.execute("SET lock_timeout = '1s'")
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            shared.database.execute(f"UPDATE job_chunks SET lease_until = 0 WHERE owner LIKE '%|{pid}|%'")
        except LockNotAvailableError:
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.05)
        else:
            return


@asynccontextmanager
async def open_pair(upstream: Upstream, folder: Path, location: str) -> AsyncGenerator[OpenJobs]:
    """Open two managers that run waiting jobs, as processes of two other machines would."""
    others = [folder / name for name in ("one", "two")]
    for other in others:
        other.mkdir()
    async with (
        open_jobs(upstream.url, others[0], store=location, owner="one|machine|1|1", run_waiting=True),
        open_jobs(upstream.url, others[1], store=location, owner="two|machine|2|2", run_waiting=True),
        open_jobs(upstream.url, folder, store=location) as kept,
    ):
        yield kept


async def end_of(kept: OpenJobs, job: Job) -> Job:
    async with asyncio.timeout(60):
        while (job := await kept.manager.find_job(job.id)).state not in ENDED_STATES:
            await asyncio.sleep(0.02)
    return job


async def test_processes_share_a_job_and_send_each_unit_once(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_pair(upstream, tmp_path, location) as kept:
        job = await kept.create(ITEMS, "up/sleep-0.02", unattended=True, concurrency=CONCURRENCY)
        async with asyncio.timeout(30):
            while len((progress := await kept.manager.read_progress(job.id)).workers) < 2:
                await asyncio.sleep(0.01)
        job = await end_of(kept, job)
        found = await kept.list_results(job)

    assert progress.job.state == "running"
    assert [worker.owner[:3] for worker in progress.workers] == ["one", "two"]
    assert (job.state, job.reason) == ("done", None)
    assert len(found) == len({tuple(row[:3]) for row in found}) == len(upstream.requests) == ITEMS


async def test_a_shared_job_is_cancelled_by_any_process_and_resumed_by_all(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_pair(upstream, tmp_path, location) as kept:
        job = await kept.create(ITEMS, "up/sleep-0.02", unattended=True, concurrency=CONCURRENCY)
        await upstream.wait_for_requests(2 * CONCURRENCY)
        assert (await kept.manager.cancel(job.id)).job.state in ("cancelling", "cancelled")
        job = await end_of(kept, job)
        sent, ended = len(upstream.requests), (await kept.manager.read_progress(job.id)).ended
        await kept.manager.resume(job.id)
        done = await end_of(kept, job)

    assert (job.state, job.reason, done.state) == ("cancelled", "it was cancelled", "done")
    assert sent == ended < ITEMS
    assert len(upstream.requests) == ITEMS


async def test_a_model_that_takes_no_calls_stops_a_shared_job_once_the_others_are_done(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    models = ("up/ok", "up/401", "fusion(up/ok, up/401 by up/sleep-0.01)")
    async with open_pair(upstream, tmp_path, location) as kept:
        job = await end_of(kept, await kept.create(60, *models, unattended=True, concurrency=4))
        progress = await kept.manager.read_progress(job.id)
        found = await kept.list_results(job)

    assert job.state == "stopped"
    assert job.reason
    assert {row.model for row in found} == {"up/ok"}
    assert len(found) == progress.ended == 60
    assert len(upstream.requests_for("401")) <= 2 * 4
    assert not upstream.requests_for("sleep-0.01")


async def test_a_job_none_of_whose_models_takes_calls_is_left_by_all(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_pair(upstream, tmp_path, location) as kept:
        job = await end_of(kept, await kept.create(ITEMS, "up/401", unattended=True, concurrency=4))

    assert job.state == "stopped"
    assert len(upstream.requests) <= 2 * 4


async def test_fusions_and_retries_of_a_shared_job_end_once(upstream: Upstream, tmp_path: Path, location: str) -> None:
    models = ("up/ok", "up/503-then-ok", "fusion(up/ok, up/503-then-ok by up/sleep-0.01)")
    async with open_pair(upstream, tmp_path, location) as kept:
        job = await end_of(kept, await kept.create(20, *models, repeats=2, unattended=True))
        found = await kept.list_results(job)
        counts = await kept.manager.read_progress(job.id)

    assert (job.state, job.reason) == ("done", None)
    assert len(found) == len({tuple(row[:3]) for row in found}) == counts.ended == 20 * 2 * 3
    assert len(upstream.requests_for("ok")) == len(upstream.requests_for("sleep-0.01")) == 40


async def test_the_deadline_of_a_shared_job_ends_it_for_all(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_pair(upstream, tmp_path, location) as kept:
        deadline = time.time() + 0.5
        job = await kept.create(ITEMS, "up/sleep-0.05", unattended=True, concurrency=2, deadline=deadline)
        job = await end_of(kept, job)
        ended = (await kept.manager.read_progress(job.id)).ended

    assert (job.state, job.reason) == ("expired", "its deadline has passed")
    assert ended == len(upstream.requests) < ITEMS
