"""Worker of a job: stopping, counting, and planning beside others."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fanout.jobs.job import ResultGroup
from fanout.jobs.worker import JobWorker
from fanout.store.jobs.journal import AttemptStarted
from fanout.store.jobs.records import Unit
from fanout.store.usage import ANSWERED
from tests.support.builders.jobs import list_attempts, open_jobs
from tests.support.upstream.server import Upstream


async def test_a_stopped_job_sends_no_call_that_waits_for_limits(upstream: Upstream, tmp_path: Path) -> None:
    """A call that waits for its account's limits has not been sent: it is withdrawn, and nothing waits for it."""
    async with open_jobs(upstream.url, tmp_path, limits={"requests_per_minute": 60, "burst": 1}) as kept:
        job = await kept.create(20, "up/ok")
        workers: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, workers.append))
        await upstream.wait_for_requests(1)
        while workers[0].progress.running < 3:
            await asyncio.sleep(0.01)
        await kept.manager.cancel(job.id)
        sent = len(upstream.requests)
        job = await running
        assert (job.state, len(upstream.requests)) == ("cancelled", sent)

        await kept.manager.resume(job.id)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(sent + 1)
        await kept.manager.cancel(job.id)
        await running


async def test_a_job_cancelled_while_its_process_was_away_sends_nothing_more(upstream: Upstream, tmp_path: Path) -> None:
    """The process was silent for longer than its lease; then it comes back."""
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(400, "up/sleep-0.05", concurrency=2)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(2)
        await kept.jobs.update(job.number, {"lease_until": 0.0})
        await kept.manager.cancel(job.id)
        job = await running

    assert job.state == "cancelled"
    assert len(upstream.requests) < 300


async def test_a_token_count_too_large_for_a_database_is_counted_as_unknown(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(3, f"up/tokens-{10**30}", "up/ok")
        async with asyncio.timeout(30):
            job = await kept.manager.run(job.id)
        counts = (await kept.manager.read_progress(job.id)).counts

    assert job.state == "done"
    totals = counts[ResultGroup(f"up/tokens-{10**30}", ANSWERED)]
    assert (totals.calls, totals.output_tokens, totals.unknown_usage) == (3, None, 3)


async def test_attempts_of_a_killed_process_are_counted(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/fail-2-then-ok")
        epoch = await kept.jobs.leases.acquire(job.number, "gone") or 0
        await kept.jobs.journal.put(AttemptStarted(Unit(job.number, 0, 0, 0), 1, epoch, time.time()))
        await kept.jobs.update(job.number, {"owner": None})
        await kept.manager.run(job.id)
        totals = (await kept.manager.read_progress(job.id)).counts[ResultGroup("up/fail-2-then-ok", ANSWERED)]
        made = await list_attempts(kept, Unit(job.number, 0, 0, 0))

    assert totals.attempts == len(made) == 4
