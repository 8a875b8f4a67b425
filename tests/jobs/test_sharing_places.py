"""A job's own `concurrency` over the processes that run it: the upstream counts the calls that it has in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fanout.jobs.job import Job
from fanout.store.jobs.records import ENDED_STATES
from tests.support.builders.job_process import kill, start_worker
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.databases import OutsideConnection
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
MOST = 5
"""Calls of the job in flight: no multiple of its processes."""
GIVEN_BACK_S = 6.0
"""Half of the lease that the places of a killed process have."""


@asynccontextmanager
async def start_workers(upstream: Upstream, folder: Path, location: str, count: int) -> AsyncGenerator[list[BaseProcess]]:
    """Start processes that share limits, as servers on one database do; end those that are left."""
    started = [start_worker(upstream.url, folder, location, shares_limits=True) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            if process.is_alive():
                await kill(process)


async def wait_for_owners(kept: OpenJobs, job: Job, count: int) -> None:
    async with asyncio.timeout(30):
        while len((await kept.manager.find_job(job.id)).owners) < count:
            await asyncio.sleep(0.01)


async def wait_for_end(kept: OpenJobs, job: Job) -> Job:
    async with asyncio.timeout(90):
        while (job := await kept.manager.find_job(job.id)).state not in ENDED_STATES:
            await asyncio.sleep(0.02)
    return job


async def test_calls_in_flight_stay_within_the_jobs_concurrency_also_if_a_process_is_killed_and_one_joins(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with (
        start_workers(upstream, tmp_path, location, 3) as workers,
        open_jobs(upstream.url, tmp_path, store=location) as kept,
    ):
        job = await kept.create(300, "up/sleep-0.05", unattended=True, concurrency=MOST)
        await wait_for_owners(kept, job, 3)
        await kill(workers[0])
        workers.append(start_worker(upstream.url, tmp_path, location, shares_limits=True))
        job = await wait_for_end(kept, job)
        found = await kept.list_results(job)

    assert (job.state, job.reason) == ("done", None)
    assert len(found) == len({tuple(row[:3]) for row in found}) == 300
    # On a busy machine a place that has come free may wait until the next ask of a process that has calls.
    assert MOST - 1 <= upstream.peak <= MOST


async def test_a_stopped_process_gives_its_places_back_at_once_and_the_last_one_deletes_the_row(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with (
        start_workers(upstream, tmp_path, location, 2) as workers,
        open_jobs(upstream.url, tmp_path, store=location) as kept,
    ):
        job = await kept.create(150, "up/sleep-0.3", unattended=True, concurrency=MOST)
        await wait_for_owners(kept, job, 2)
        await upstream.wait_for_requests(2 * MOST)
        workers[0].terminate()
        await asyncio.to_thread(workers[0].join)
        async with asyncio.timeout(GIVEN_BACK_S):
            while upstream.in_flight < MOST:
                await asyncio.sleep(0.01)
        job = await wait_for_end(kept, job)
        with OutsideConnection(location) as database:
            async with asyncio.timeout(GIVEN_BACK_S):
                while database.execute("SELECT account FROM shared_limits") != []:
                    await asyncio.sleep(0.02)

    assert (workers[0].exitcode, job.state) == (0, "done")
    assert upstream.peak == MOST


async def test_a_job_without_a_concurrency_of_its_own_has_no_row(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with (
        start_workers(upstream, tmp_path, location, 2),
        open_jobs(upstream.url, tmp_path, store=location) as kept,
    ):
        job = await kept.create(150, "up/sleep-0.05", unattended=True)
        with OutsideConnection(location) as database:
            await wait_for_owners(kept, job, 2)
            assert database.execute("SELECT account FROM shared_limits") == []
        assert (await wait_for_end(kept, job)).state == "done"
