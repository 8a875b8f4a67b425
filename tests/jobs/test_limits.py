"""A job beside interactive traffic on the same account: its limits hold, and whoever waits at a screen comes first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.api import build_request
from fanout.core.schema import Completion
from tests.support.builders.jobs import open_jobs
from tests.support.stalls import watch_stalls
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

BURST, PERIOD_S = 10, 1.0
LIMITS = {"requests_per_minute": 600, "burst": BURST}
"""Ten starts in any second."""
JITTER_S = 0.1
"""Between a start's slot and its arrival at the upstream, on a machine that has nothing else to do."""


async def test_limits_hold_for_jobs_and_interactive_calls_come_first(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location, limits=LIMITS) as kept, watch_stalls() as seen:
        job = await kept.create(35, "up/ok")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(BURST)
        waiting = kept.dispatcher.limiters.find("up", None)
        assert waiting
        while waiting.snapshot().waiting_batch < 4:
            await asyncio.sleep(0.01)
        before = len(upstream.requests)
        calls = kept.dispatcher.plan(build_request("now", [f"up/say-{number}" for number in range(5)]))
        outcomes = await kept.dispatcher.run(calls, deadline_s=30)
        job = await running

    assert job.state == "done"
    assert all(isinstance(outcome.result, Completion) for outcome in outcomes)
    # They stand before every call of the job that waited when they came.
    places = [place for place, sent in enumerate(upstream.requests) if sent.model.startswith("say-")]
    assert max(places) < before + BURST
    times = [sent.arrived_s for sent in upstream.requests]
    assert len(times) == 40
    within_s = PERIOD_S - JITTER_S - 2 * seen.longest_s
    crowds = [sum(start <= other < start + within_s for other in times) for start in times]
    assert max(crowds) <= BURST
    assert times[-1] - times[0] > 3 * PERIOD_S - JITTER_S - 2 * seen.longest_s


async def test_calls_in_flight_never_exceed_the_concurrency_of_the_account(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location, limits={"concurrency": 5}) as kept:
        job = await kept.create(60, "up/sleep-0.02", "up/sleep-0.01")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(20)
        calls = kept.dispatcher.plan(build_request("now", ["up/ok", "up/say-hi"]))
        await kept.dispatcher.run(calls, deadline_s=30)
        job = await running

    assert job.state == "done"
    assert upstream.peak <= 5


@timed
async def test_a_slow_model_does_not_delay_the_others(upstream: Upstream, tmp_path: Path) -> None:
    """Two accounts: the fast one is done long before the last call of the slow one."""
    more = {"providers": {"slow": {"adapter": "openai", "base_url": upstream.url, "limits": {"concurrency": 1}}}}
    async with open_jobs(upstream.url, tmp_path, more=more) as kept:
        job = await kept.create(300, "slow/sleep-0.01", "up/ok")
        await kept.manager.run(job.id)

    last = max(place for place, sent in enumerate(upstream.requests) if sent.model == "ok")
    slow_before = sum(sent.model == "sleep-0.01" for sent in upstream.requests[:last])
    assert slow_before < 290


async def test_a_rate_limited_model_does_not_delay_others_of_its_account(upstream: Upstream, tmp_path: Path) -> None:
    """It waits for half a minute; the other one goes on at its own pace."""
    async with open_jobs(upstream.url, tmp_path, retries={"attempts": 3, "max_delay_s": 30}) as kept:
        job = await kept.create(200, "up/429-s-30", "up/ok", concurrency=6)
        running = asyncio.create_task(kept.manager.run(job.id))
        async with asyncio.timeout(25):
            while len(upstream.requests_for("ok")) < 200:
                await asyncio.sleep(0.05)
        await kept.manager.cancel(job.id)
        assert (await running).state == "cancelled"
