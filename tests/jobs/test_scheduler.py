"""Scheduler of units: bounded queues, and turns for others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.dispatch.request import Request
from fanout.jobs import model_queues
from fanout.jobs.claims import WholeJob
from fanout.jobs.job import RequestBuilder
from fanout.jobs.row_request import RowRequestBuilder
from fanout.jobs.worker import JobWorker
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


async def test_the_number_of_units_that_wait_for_a_retry_is_bounded(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_queues, "MAX_DELAYED_UNITS", 8)
    most = 0
    async with open_jobs(upstream.url, tmp_path, retries={"attempts": 2, "max_delay_s": 0.2}) as kept:
        job = await kept.create(100, "up/503-s-0.2", concurrency=4)
        workers: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, workers.append))
        while not running.done():
            most = max(most, workers[0].progress.waiting) if workers else 0
            await asyncio.sleep(0.005)
        job = await running

    assert job.state == "done"
    assert len(upstream.requests) == 200
    assert 0 < most <= 8 + 4


class CountingBuilder:
    """Request builder that notes how often another task had run before each row."""

    def __init__(self, inner: RequestBuilder) -> None:
        self._inner = inner
        self.turns = 0
        self.seen: list[int] = []

    def parse_row(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        return self._inner.parse_row(values)

    def build_request(self, body: str) -> Request:
        self.seen.append(self.turns)
        return self._inner.build_request(body)

    async def run_beside(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)


async def test_planning_lets_other_tasks_run_between_rows(upstream: Upstream, tmp_path: Path) -> None:
    """A chunk of the input is not planned in one go, even if nothing of it is to be sent."""
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.manager.run((await kept.create(250, "up/ok")).id)
        builder = CountingBuilder(RowRequestBuilder(job.spec, ""))
        epoch = await kept.jobs.leases.acquire(job.number, "me") or 0
        counts = (await kept.manager.read_progress(job.id)).counts
        worker = JobWorker(kept.jobs, kept.dispatcher, job, WholeJob(kept.jobs, job, epoch), builder, counts)
        others = asyncio.create_task(builder.run_beside())
        assert await worker.run() == ("done", None)
        others.cancel()

    assert len(builder.seen) == 250
    assert max(Counter(builder.seen).values()) <= 8
