"""Units that share a long beginning: one warms the provider's cache, and the rest follow together."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.evaluate.report.gather import gather
from fanout.evaluate.report.report import build_report
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream

LONG = "Answer as a judge would. " * 200
SHORT = "Be brief."


async def test_the_first_of_units_with_a_long_beginning_is_awaited_and_the_rest_go_together(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(8, "up/first-0.3", "up/sleep-0.3", system=LONG)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(2)
        await asyncio.sleep(0.1)
        assert sorted(request.model for request in upstream.requests) == ["first-0.3", "sleep-0.3"], "one of each model"
        assert (await running).state == "done"

    assert len(upstream.requests) == 16
    assert min(upstream.peaks.values()) > 1, "the rest went together"


async def test_units_with_short_or_different_beginnings_wait_for_none(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(4, "up/sleep-0.3", system=SHORT)
        await kept.manager.run(job.id)
        # The rows differ in their first characters, however long they are.
        job = await kept.create(4, "up/first-0.3", template="{{prompt}} " + LONG)
        await kept.manager.run(job.id)

    assert upstream.peaks == {"sleep-0.3": 4, "first-0.3": 4}


async def test_a_first_unit_that_fails_lets_the_others_go(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(4, "up/error-400", system=LONG)
        job = await kept.manager.run(job.id)
        progress = await kept.manager.read_progress(job.id)

    assert (job.state, progress.ended, len(upstream.requests)) == ("done", 4, 4)


async def test_a_first_unit_that_waits_for_money_is_sent_when_there_is_some(upstream: Upstream, tmp_path: Path) -> None:
    """Held back after it was let through, it must not wait for itself."""
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    models = {name: {"provider": "up", "id": name, "kind": "chat", "price": price} for name in ("ok", "sleep-0.1")}
    async with open_jobs(upstream.url, tmp_path, more={"models": models}) as kept:
        job = await kept.create(2, "ok", "sleep-0.1", system=LONG, max_cost_usd=0.008, parameters={"max_tokens": 10})
        async with asyncio.timeout(20):
            job = await kept.manager.run(job.id)
        progress = await kept.manager.read_progress(job.id)

    assert (job.state, progress.ended) == ("done", 4)


async def test_a_report_says_that_caches_served_models_differently(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(2, "up/input-100-cached-50", "up/input-100-cached-0", "up/input-100")
        job = await kept.manager.run(job.id)
        report = build_report(await gather(kept.jobs, job))
        same = await kept.create(2, "up/input-100-cached-50", "up/input-100-cached-48")
        same = await kept.manager.run(same.id)
        others = build_report(await gather(kept.jobs, same)).notes

    assert [model.operations.cached_share for model in report.models] == [0.5, 0.0, None]
    (note,) = [note for note in report.notes if "caches" in note]
    assert "up/input-100-cached-50 50%, up/input-100-cached-0 0%, up/input-100 unknown" in note
    assert not [note for note in others if "caches" in note]
