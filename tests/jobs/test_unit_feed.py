"""Feed of units: each row is read once for all models, and a slow model neither holds back the others nor fills the memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from fanout.jobs import unit_feed
from fanout.jobs.claims import WholeJob
from fanout.jobs.item_runs import ItemRuns
from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.row_request import RowRequestBuilder
from fanout.jobs.worker import JobWorker
from fanout.store.jobs.inputs import MAX_CHARS_AT_ONCE
from tests.jobs.test_scheduler import CountingBuilder
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


async def make_worker(kept: OpenJobs, job: Job) -> tuple[JobWorker, CountingBuilder]:
    builder = CountingBuilder(RowRequestBuilder(job.spec, ""))
    epoch = await kept.jobs.leases.acquire(job.number, "me") or 0
    counts = (await kept.manager.read_progress(job.id)).counts
    return JobWorker(kept.jobs, kept.dispatcher, job, WholeJob(kept.jobs, job, epoch), builder, counts), builder


def list_prompts(upstream: Upstream, model: str) -> list[str]:
    return [request.body["messages"][0]["content"] for request in upstream.requests_for(model)]


async def test_each_row_is_planned_once_for_all_models(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(20, *(f"up/ok-{number}" for number in range(12)))
        worker, builder = await make_worker(kept, job)
        assert await worker.run() == ("done", None)

    assert len(upstream.requests) == 20 * 12
    assert len(builder.seen) == 20


@timed
async def test_a_slow_model_holds_no_other_back_and_gets_each_row_in_order(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_feed, "MAX_BUFFERED_UNITS", 8)
    most = 0
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(60, "up/ok", {"model": "up/sleep-0.02", "label": "slow"}, repeats=2, concurrency=2)
        worker, builder = await make_worker(kept, job)
        queues: Sequence[ModelQueue] = list(worker._scheduler._queues.values())
        running = asyncio.create_task(worker.run())
        left_when_fast_ended = None
        while not running.done():
            most = max(most, *(len(queue.buffer) for queue in queues))
            if left_when_fast_ended is None and len(upstream.requests_for("ok")) == 120:
                left_when_fast_ended = 120 - len(upstream.requests_for("sleep-0.02"))
            await asyncio.sleep(0.002)
        assert await running == ("done", None)

    expected = sorted(f"q{number}" for number in range(60) for _ in range(2))
    for model in ("ok", "sleep-0.02"):
        assert sorted(list_prompts(upstream, model)) == expected
    slow = [int(prompt[1:]) for prompt in list_prompts(upstream, "sleep-0.02")]
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(slow))
    assert left_when_fast_ended is not None
    assert left_when_fast_ended > 20
    assert most <= 8  # half of the units planned ahead, and the two of the row that was begun before that
    # The slow one's rows are planned a second time, alone; the fast one's are not.
    assert 60 <= len(builder.seen) <= 2 * 60


async def test_a_queue_may_have_more_than_its_share_while_the_others_leave_room(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_feed, "MAX_BUFFERED_UNITS", 80)
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(50, "up/ok-1", "up/ok-2")
        worker, builder = await make_worker(kept, job)
        feed, (fast, slow) = worker._scheduler._feed, worker._scheduler._queues.values()
        taken = [await feed.take(fast) for _ in range(50)]

    assert all(taken)
    # Its share is 40: what is above it would else be read and planned again.
    assert (len(builder.seen), len(slow.buffer), bool(slow.backlog)) == (50, 50, False)


async def test_a_queue_that_falls_behind_sends_what_was_open_and_nothing_twice_when_it_is_resumed(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_feed, "MAX_BUFFERED_UNITS", 4)
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(40, "up/ok", "up/sleep-0.05", concurrency=2)
        worker, _ = await make_worker(kept, job)
        running = asyncio.create_task(worker.run())
        await upstream.wait_for_requests(45)
        worker.stop("queued", None)
        assert await running == ("queued", None)
        worker, _ = await make_worker(kept, job)
        assert await worker.run() == ("done", None)

    for model in ("ok", "sleep-0.05"):
        assert sorted(list_prompts(upstream, model)) == sorted(f"q{number}" for number in range(40))


async def test_long_rows_are_read_a_few_at_a_time(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(12, "up/ok")
        async with kept.store.database.write_transaction() as connection:
            body = "x" * (MAX_CHARS_AT_ONCE // 3)
            await connection.exec_driver_sql(f"UPDATE items SET body = '{body}'")
        chunk = await kept.jobs.inputs.read_chunk(job.number, -1)
        of_numbers = await kept.jobs.inputs.read_items(job.number, [2, 5, 7, 11], None)

    assert [item.item for item in chunk.items] == [0, 1, 2]
    assert [item.item for item in of_numbers.items] == [2, 5, 7]


def test_runs_of_items_return_every_number_in_order() -> None:
    runs, numbers = ItemRuns(), [0, 1, 2, 5, 6, 9, 10, 11, 12, 20]
    for number in numbers:
        runs.append(number)
    assert runs.peek(4) == [0, 1, 2, 5]
    found = []
    while runs:
        found.append(runs.peek(1)[0])
        runs.drop_first()
    assert found == numbers
    runs.append(30)
    assert runs.peek(9) == [30]
