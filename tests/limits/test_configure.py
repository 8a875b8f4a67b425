"""Other limits for a limiter that is in use: nothing that was counted, or is in flight, is forgotten."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fanout.config.providers_file import LimitsRow
from fanout.core.errors import ProviderError
from fanout.limits.limiter import Limiter
from fanout.limits.token_estimates import CallSize
from tests.support.builders.limiter import acquire, build_limiter, start_call, wait_for_waiters


def configure(limits: Limiter, **row: Any) -> None:
    limits.configure(LimitsRow(**row))


async def count_free_starts(limits: Limiter) -> int:
    """Start calls until one would wait; return how many there were."""
    free = 0
    while (permit := limits.try_acquire("m", CallSize(0, 1), time.monotonic())) is not None:
        limits.counted.count(permit)
        free += 1
        assert free < 50
    return free


@pytest.mark.parametrize(
    ("before", "after", "free"),
    [
        ({"requests_per_minute": 4}, {"requests_per_minute": 6}, 3),
        ({"requests_per_minute": 4}, {"requests_per_minute": 2}, 0),
        ({"requests_per_minute": 4}, {"requests_per_minute": 8, "burst": 4}, 1),
        ({"requests_per_minute": 8, "burst": 4}, {"requests_per_minute": 5}, 2),
        ({}, {"requests_per_minute": 5}, 4),
        ({"tokens_per_minute": 20}, {"tokens_per_minute": 30}, 15),
        ({"tokens_per_minute": 20}, {"tokens_per_minute": 30, "token_bucket": True}, 15),
        ({"tokens_per_minute": 20, "token_bucket": True}, {"tokens_per_minute": 30}, 15),
        ({}, {"tokens_per_minute": 30}, 25),
    ],
)
async def test_what_was_counted_or_has_a_permit_counts_on(before: dict[str, Any], after: dict[str, Any], free: int) -> None:
    """Three calls of five tokens, of which two have left; those of a limiter without limits have not been counted."""
    limits = build_limiter(period_s=60, **before)
    for _ in range(2):
        limits.release(await start_call(limits, max_tokens=4), 1, 4)
    permit = limits.try_acquire("m", CallSize(0, 5), time.monotonic())
    assert permit

    configure(limits, **after)
    assert await count_free_starts(limits) == free
    limits.release(permit, was_sent=False)
    given_back = 1 if "requests_per_minute" in after else 5
    assert await count_free_starts(limits) == (0 if not free else given_back)


async def test_usage_that_comes_after_the_change_leaves_no_trace_in_another_window() -> None:
    limits = build_limiter(period_s=60, tokens_per_minute=100)
    permit = await start_call(limits, max_tokens=50)
    configure(limits, tokens_per_minute=200)
    limits.release(permit, 0, 1)
    assert limits.counted.tokens
    assert limits.counted.tokens.compute_wait_s(time.monotonic(), 150) == 0
    assert limits.counted.tokens.compute_wait_s(time.monotonic(), 151) > 0


async def test_more_concurrency_starts_those_that_wait() -> None:
    limits = build_limiter(concurrency=1)
    first = await acquire(limits)
    waiting = asyncio.create_task(acquire(limits))
    await wait_for_waiters(limits, 1)
    configure(limits, concurrency=2)
    second = await waiting
    for permit in (first, second):
        limits.release(permit)
    configure(limits, concurrency=1, circuit={"failures": 0})
    assert not limits.record_failure("m", "server")
    assert limits.is_idle


async def test_a_lower_limit_waits_for_as_many_starts_as_exceed_it() -> None:
    limits = build_limiter(period_s=60, requests_per_minute=8)
    for _ in range(6):
        limits.release(await start_call(limits))
    configure(limits, requests_per_minute=2)
    with pytest.raises(ProviderError) as caught:
        await acquire(limits, within_s=1)
    wait_s = caught.value.failure.retry_after_s
    assert wait_s is not None
    assert 59 < wait_s < 62, "not one period for each two of them"
