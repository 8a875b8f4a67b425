"""Limits of a whole job over several processes that run it: what it may cost, when it must end, and when it is decided."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from tests.support.builders.job_process import kill, start_worker
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
MOST_USD = (18 + 4 * 10.0) / 1e6
"""The most that a call can cost: its prompt has at most two bytes, and 16 tokens may be put around it."""
EACH_USD = (10 + 4 * 10.0) / 1e6
AT_ONCE = 4
"""Calls of a process in flight."""
real_time = time.time


async def wait_for_end(kept: OpenJobs, job: Job) -> Job:
    async with asyncio.timeout(60):
        while (job := await kept.manager.find_job(job.id)).state in ("queued", "running", "cancelling"):
            await asyncio.sleep(0.02)
    return job


async def wait_for_owners(kept: OpenJobs, job: Job, count: int) -> None:
    async with asyncio.timeout(30):
        while len((await kept.manager.find_job(job.id)).owners) < count:
            await asyncio.sleep(0.01)


async def test_a_job_never_costs_more_than_its_limit_over_all_processes(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    """One of them is killed: its calls under way may have cost something, and nothing else of its money is lost."""
    models = {"dear": {"provider": "up", "id": "sleep-0.05", "kind": "chat", "price": PRICE}}
    limit_usd = 80.5 * EACH_USD
    workers = [start_worker(upstream.url, tmp_path, location, more={"models": models}) for _ in range(2)]
    async with open_jobs(upstream.url, tmp_path, store=location, more={"models": models}) as kept:
        spec = {"unattended": True, "concurrency": AT_ONCE, "parameters": {"max_tokens": 4}}
        job = await kept.create(99, "dear", max_cost_usd=limit_usd, **spec)
        await wait_for_owners(kept, job, 2)
        await kill(workers[0])
        job = await wait_for_end(kept, job)
        await kill(workers[1])
        progress = await kept.manager.read_progress(job.id)

    lost = len(upstream.requests) - progress.answered
    assert (job.state, 0 <= lost <= AT_ONCE) == ("stopped", True)
    assert (job.reason or "").startswith(f"the next call could exceed the limit of {limit_usd:g} USD; ")
    # Some calls of the dead process may have been begun and not sent: nobody can know, so they count as spent.
    assert limit_usd - (1 + AT_ONCE) * MOST_USD < (progress.cost_usd or 0) <= limit_usd - lost * EACH_USD


@asynccontextmanager
async def open_managers(upstream: Upstream, folder: Path, location: str, count: int) -> AsyncGenerator[OpenJobs]:
    """Open jobs that several processes run, as far as can be seen from the database: here all of them are one."""
    async with AsyncExitStack() as stack:
        for number in range(count):
            (folder / str(number)).mkdir()
            owner = f"host|machine {number}|1|1"
            running = open_jobs(upstream.url, folder / str(number), store=location, owner=owner, run_waiting=True)
            kept = await stack.enter_async_context(running)
        yield kept


async def test_a_job_expires_once_by_the_databases_clock(
    upstream: Upstream, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    """The clocks of the machines that run it are two hours behind."""
    monkeypatch.setattr(time, "time", lambda: real_time() - 7200)
    async with open_managers(upstream, tmp_path, location, 2) as kept:
        job = await kept.create(1_000, "up/sleep-0.05", unattended=True, concurrency=2, deadline=real_time() + 1.5)
        job = await wait_for_end(kept, job)
        progress = await kept.manager.read_progress(job.id)

    assert (job.state, job.reason) == ("expired", "its deadline has passed")
    assert len(upstream.requests) == progress.answered < 1_000
    assert sum("job.ended" in line for line in log_lines) == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_a_job_decides_the_same_however_many_processes_run_it(
    upstream: Upstream, tmp_path: Path, location: str, count: int
) -> None:
    async with open_managers(upstream, tmp_path, location, count) as kept:
        spec = JobSpec(
            models=({"model": "up/say-yes-sleep-0.02"}, {"model": "up/say-no-sleep-0.02"}),
            scorers=({"type": "exact"},),
            until_decided={"metric": "exact", "seed": 7},
            unattended=True,
        )
        rows = (InputRow(n + 1, {"prompt": f"q{n}", "reference": "yes" if n % 5 else "no"}) for n in range(400))
        job = await wait_for_end(kept, await kept.manager.create(spec, rows))

    sentence = "decided by exact after 16 of 400 items: up/say-yes-sleep-0.02 is better than every other model"
    assert (job.state, job.reason) == ("done", sentence)
    assert len(upstream.requests) <= 2 * (16 + 32 * count)
