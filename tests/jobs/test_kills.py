"""`kill -9` again and again in mid-job: every unit has one record, and nothing is paid twice but what was under way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from fanout.core.errors import LeaseLostError
from tests.support.builders.job_process import kill, start_process
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream

KILLS = {"sqlite": (20, 140), "postgresql": (10, 80)}
"""How often, and the items: with two models, their fusion and two repeats six units each."""
MODELS = ("up/sleep-0.01", "up/sleep-0.02", "fusion(up/sleep-0.01, up/sleep-0.02 by up/ok)")


async def test_a_kill_loses_nothing_and_repeats_only_calls_in_flight(upstream: Upstream, tmp_path: Path, location: str) -> None:
    dice = random.Random(50)
    kills, items = KILLS["postgresql" if "://" in location else "sqlite"]
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(items, *MODELS, repeats=2, concurrency=8)
    in_flight = 0
    for _ in range(kills):
        process, before = start_process(upstream.url, tmp_path, job, location), len(upstream.requests)
        wanted = before + dice.randint(1, 30)  # the first eight begin at once, before any answer can be kept
        async with asyncio.timeout(30):
            while len(upstream.requests) < wanted and process.is_alive():
                await asyncio.sleep(0.005)
        await asyncio.sleep(dice.random() * 0.02)
        await kill(process)
        await upstream.wait_until_idle()
        in_flight += sum(request.is_abandoned for request in upstream.requests[before:])

    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        assert 0 < len(await kept.list_results(job)) < job.units
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)
        progress = await kept.manager.read_progress(job.id)

    assert job.state == "done"
    assert len(found) == len({tuple(row[:3]) for row in found}) == job.units == 6 * items
    assert {row.result for row in found} == {"answered"}
    assert progress.ended == job.units
    # An answer that had arrived but was not yet on disk was under way, too: no more than there were places.
    assert job.units <= len(upstream.requests) <= job.units + kills * 2 * 8
    attempts = Counter((request.model, request.body["messages"][0]["content"]) for request in upstream.requests)
    assert min(attempts.values()) >= 2
    fused = [question for model, question in attempts if model == "ok"]
    assert len(fused) == items  # each with both answers in it, however often it was cut off
    assert all("This is sleep-0.01." in question and "This is sleep-0.02." in question for question in fused)


async def test_a_second_process_takes_over_from_a_dead_one_and_waits_for_a_living_one(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(50, "up/sleep-0.05")
        process = start_process(upstream.url, tmp_path, job, location)
        await upstream.wait_for_requests(2, timeout_s=30)
        with pytest.raises(LeaseLostError):
            await kept.manager.run(job.id)
        waiting = asyncio.create_task(kept.manager.run(job.id, wait=True))
        await asyncio.sleep(0.2)
        ran = len(upstream.requests)
        await kill(process)
        done = await waiting

    assert done.state == "done"
    assert ran < 50
    assert 50 <= len(upstream.requests) < 100
