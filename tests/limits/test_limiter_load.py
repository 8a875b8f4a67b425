"""The limiter under load: the cost of thousands of waiters, and what remains of them."""

from __future__ import annotations

import asyncio
import time

from fanout.core.rate_limits import RateLimitStatus, Remaining
from tests.support.builders.limiter import acquire, build_limiter, report_limits, wait_for_waiters
from tests.support.timing import timed


@timed
async def test_ten_thousand_waiters_cost_nothing_while_they_wait_and_leave_quickly() -> None:
    limits = build_limiter(concurrency=1)
    held = await acquire(limits)
    tasks = [asyncio.create_task(acquire(limits, f"m{i % 7}")) for i in range(10_000)]
    await wait_for_waiters(limits, 10_000)
    before = time.process_time()
    await asyncio.sleep(0.3)
    idle_cpu_s = time.process_time() - before
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    limits.release(held)
    assert limits.is_idle
    assert idle_cpu_s < 0.15  # polled every 10 ms, ten thousand waiters take the whole core


@timed
async def test_many_models_in_one_queue_cost_no_more_than_one() -> None:
    limits = build_limiter(concurrency=1)
    held = await acquire(limits)
    before = time.process_time()
    tasks = [asyncio.create_task(acquire(limits, f"m{i}")) for i in range(5_000)]
    await wait_for_waiters(limits, 5_000)
    assert time.process_time() - before < 2  # 14 s where every arrival looks through all queues
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    limits.release(held)


@timed
async def test_many_waiters_for_an_upstreams_quota_cost_no_more() -> None:
    limits = build_limiter()
    await report_limits(limits, RateLimitStatus(requests=Remaining(10, 0, 40.0)))
    before = time.process_time()
    tasks = [asyncio.create_task(acquire(limits)) for _ in range(5_000)]
    await wait_for_waiters(limits, 5_000)
    assert time.process_time() - before < 2
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert limits.is_idle


async def test_queues_and_pauses_that_nobody_needs_are_forgotten() -> None:
    """Callers choose the names of models, so neither queues nor pauses may be kept for every name ever used."""
    limits = build_limiter(concurrency=1)
    held = await acquire(limits)
    leaving = [asyncio.create_task(acquire(limits, f"m{i}")) for i in range(100)]
    await wait_for_waiters(limits, 100)
    for waiter in leaving:
        waiter.cancel()
    await asyncio.wait(leaving)
    for i in range(100):
        limits.pause(f"m{i}", 0.001)
    await asyncio.sleep(0.005)
    limits.pause("last", 10)
    limits.release(held)
    assert limits.snapshot().paused_models == ("last",)
    assert (len(limits._waiting.by_model), len(limits._pauses.ends)) == (0, 1)
