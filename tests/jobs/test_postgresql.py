"""Jobs on a PostgreSQL server that stops, that somebody else holds, and that several machines share."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fanout.core.errors import LeaseLostError, StoreError
from fanout.jobs import unit_journal, worker
from fanout.jobs.job import Job
from fanout.jobs.worker import JobWorker
from fanout.observability import logs
from fanout.store.jobs import leases
from tests.support.builders.job_process import PROCESSES, kill
from tests.support.builders.jobs import open_jobs
from tests.support.databases import OutsideConnection
from tests.support.postgres import Postgres
from tests.support.upstream.server import Upstream

ELSEWHERE = "elsewhere|another machine|1|1"
SHORT_LEASE_S, SHORT_BEAT_S = 3.0, 0.5
ITEMS = 60


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant, not a piece of the code: half a minute of waiting proves nothing more than a second."""
    monkeypatch.setattr(unit_journal, "PATIENCE_S", 1.0)


async def wait_for_trouble(seen: list[JobWorker]) -> str:
    """Wait until the running job cannot be written, and return the reason."""
    async with asyncio.timeout(30):
        while seen[0].store_error is None:
            await asyncio.sleep(0.02)
    return seen[0].store_error


async def test_a_job_waits_for_a_database_that_restarts(
    upstream: Upstream, tmp_path: Path, restartable_postgres: Postgres, log_lines: list[str]
) -> None:
    """It stops as in a crash, in the midst of a job: nothing is sent while it is away, and nothing is lost or sent twice."""
    location = await restartable_postgres.create()
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(ITEMS, "up/sleep-0.01", concurrency=4)
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        await upstream.wait_for_requests(10)
        await asyncio.to_thread(restartable_postgres.stop)
        await upstream.wait_until_idle()
        sent = len(upstream.requests)
        await wait_for_trouble(seen)
        with pytest.raises(StoreError):
            await kept.list_results(job)
        await asyncio.to_thread(restartable_postgres.start)
        job = await running
        found = await kept.list_results(job)
        progress = await kept.manager.read_progress(job.id)

    assert job.state == "done"
    assert 10 <= sent <= 10 + 4 * 8
    assert len(found) == len({tuple(row[:3]) for row in found}) == progress.ended == ITEMS
    assert len(upstream.requests) == ITEMS
    assert any("job.write_failed" in line for line in log_lines)
    assert "geheim" not in "".join(log_lines)


@pytest.mark.usefixtures("short_patience")
async def test_a_database_that_stays_away_ends_the_run_and_the_next_one_continues(
    upstream: Upstream, tmp_path: Path, restartable_postgres: Postgres
) -> None:
    location = await restartable_postgres.create()
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(ITEMS, "up/sleep-0.01", concurrency=4)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(10)
        await asyncio.to_thread(restartable_postgres.stop)
        with pytest.raises(StoreError, match=r"Connect call failed|connection"):
            await running
        await asyncio.to_thread(restartable_postgres.start)
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)

    assert job.state == "done"
    assert len(found) == ITEMS
    assert ITEMS <= len(upstream.requests) <= ITEMS + 4


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_a_job_waits_for_the_lock_of_another_session(upstream: Upstream, tmp_path: Path, location: str) -> None:
    """For longer than a statement waits for it, and nothing is sent meanwhile."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(ITEMS, "up/sleep-0.01", concurrency=4)
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        await upstream.wait_for_requests(10)
        with OutsideConnection(location) as other:
            other.hold()
            await upstream.wait_until_idle()
            sent = len(upstream.requests)
            assert "lock timeout" in await wait_for_trouble(seen)
            assert len(upstream.requests) == sent
            other.release()
        job = await running
        found = await kept.list_results(job)

    assert job.state == "done"
    assert len(found) == len(upstream.requests) == ITEMS


def run_elsewhere(url: str, folder: str, job: str, store: str) -> None:
    """A process of another machine, as far as can be seen from here, whose leases are short."""
    logs.configure("error", "json")
    leases.LEASE_S, worker.RUN_RENEWAL_INTERVAL_S = SHORT_LEASE_S, SHORT_BEAT_S
    asyncio.run(_run_elsewhere(url, Path(folder), job, store))


async def _run_elsewhere(url: str, folder: Path, job: str, store: str) -> None:
    async with open_jobs(url, folder, store=store, owner=ELSEWHERE) as kept:
        await kept.manager.run(job)


async def read_owner(location: str, job: Job) -> tuple[str | None, float]:
    """Return the owner of a job and the seconds left of its lease, by the database's clock."""
    with OutsideConnection(location) as database:
        left = "lease_until - extract(epoch from clock_timestamp())::double precision"
        ((name, seconds),) = database.execute(f"SELECT owner, {left} FROM jobs WHERE id = '{job.id}'")
    return name, seconds


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_a_job_of_another_machine_is_taken_over_once_its_lease_has_run_out(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    """`kill -9`: from here it cannot be seen that the process is gone."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(20, "up/sleep-0.2", concurrency=2)
        process = PROCESSES.Process(target=run_elsewhere, args=(upstream.url, str(tmp_path), job.id, location))
        process.start()
        await upstream.wait_for_requests(4, timeout_s=30)
        with pytest.raises(LeaseLostError):
            await kept.manager.run(job.id)
        await kill(process)
        name, left_s = await read_owner(location, job)
        assert name == ELSEWHERE
        assert 0 < left_s <= SHORT_LEASE_S
        with pytest.raises(LeaseLostError):
            await kept.manager.run(job.id)
        await upstream.wait_until_idle()
        before = len(upstream.requests)
        waiting = asyncio.create_task(kept.manager.run(job.id, wait=True))
        await asyncio.sleep(left_s / 2)
        assert len(upstream.requests) == before
        done = await waiting
        found = await kept.list_results(job)

    assert done.state == "done"
    assert len(found) == len({tuple(row[:3]) for row in found}) == 20
    assert 20 <= len(upstream.requests) <= 22


async def test_a_machine_with_a_wrong_clock_takes_no_job_from_another(
    upstream: Upstream, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases go by the database's clock alone."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(20, "up/ok")
        assert await kept.jobs.leases.acquire(job.number, ELSEWHERE) is not None
        real = time.time
        for wrong_s in (-7200.0, 7200.0):
            monkeypatch.setattr(time, "time", lambda wrong_s=wrong_s: real() + wrong_s)
            with pytest.raises(LeaseLostError):
                await kept.manager.run(job.id)
            assert (await kept.manager.find_job(job.id)).owners
        assert await kept.jobs.leases.acquire(job.number, "here|this machine|1|1", dead_owners=[ELSEWHERE]) is not None
        assert (await kept.manager.find_job(job.id)).owners

    assert upstream.requests == []
