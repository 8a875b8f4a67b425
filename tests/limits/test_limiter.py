"""The limiter: exact rates, a fair order, and nothing lost when a waiter leaves."""

from __future__ import annotations

import asyncio
import time

import pytest

from fanout.config.providers_file import LimitsRow
from fanout.core.errors import ProviderError
from fanout.core.rate_limits import RateLimitStatus, Remaining
from fanout.limits.limiter import InFlightCap, Limiter
from fanout.limits.queue import Permit, Priority
from fanout.limits.registry import LimiterRegistry
from fanout.limits.token_estimates import CallSize
from fanout.limits.upstream_quota import MAX_QUOTAS
from tests.support.builders.limiter import FAR, acquire, build_limiter, report_limits, start_call, wait_for_waiters
from tests.support.stalls import watch_stalls
from tests.support.timing import timed


def count_most_in_any_window(starts: list[float], period_s: float) -> int:
    return max(sum(1 for other in starts if 0 <= other - start < period_s) for start in starts)


async def test_starts_in_any_period_never_exceed_the_rate() -> None:
    limits = build_limiter(period_s=0.2, requests_per_minute=20)
    starts = []

    async def call() -> None:
        permit = await acquire(limits)
        starts.append(time.monotonic())
        limits.release(permit)

    async with watch_stalls() as seen:
        await asyncio.gather(*(call() for _ in range(90)))
    # The whole period's may start at once, and never more. A start is noted late where the loop stood still.
    assert count_most_in_any_window(starts, 0.199 - 2 * seen.longest_s) <= 20
    assert starts[-1] - starts[0] > 4 * 0.2 - 2 * seen.longest_s


async def test_burst_smooths_the_starts() -> None:
    limits = build_limiter(period_s=0.4, requests_per_minute=20, burst=2)
    starts = []
    async with watch_stalls() as seen:
        for _ in range(10):
            limits.release(await acquire(limits))
            starts.append(time.monotonic())
    assert count_most_in_any_window(starts, 0.0399 - 2 * seen.longest_s) <= 2
    assert starts[-1] - starts[0] > 4 * 0.04 - 2 * seen.longest_s


async def test_calls_in_flight_stay_within_concurrency_and_places_come_back() -> None:
    limits = build_limiter(concurrency=3)
    highest = running = 0

    async def call() -> None:
        nonlocal highest, running
        permit = await acquire(limits)
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0.001)
        running -= 1
        limits.release(permit)

    await asyncio.gather(*(call() for _ in range(50)))
    assert (highest, limits.in_flight, limits.is_idle) == (3, 0, True)


async def test_tokens_reserved_in_any_period_stay_within_the_limit() -> None:
    limits = build_limiter(period_s=0.2, tokens_per_minute=100)
    grants: list[float] = []
    async with watch_stalls() as seen:
        for _ in range(6):
            limits.release(await acquire(limits, max_tokens=40))  # no usage known: the reservation stands
            grants.append(time.monotonic())
    assert count_most_in_any_window(grants, 0.199 - 2 * seen.longest_s) <= 2
    assert grants[-1] - grants[0] > 2 * 0.2 - 0.01 - 2 * seen.longest_s


async def test_real_usage_replaces_the_reservation() -> None:
    limits = build_limiter(period_s=FAR, tokens_per_minute=100)
    limits.release(await acquire(limits, max_tokens=100), input_tokens=5, output_tokens=5)
    await acquire(limits, max_tokens=90, within_s=0.1)
    with pytest.raises(ProviderError):
        await acquire(limits, max_tokens=1, within_s=0.1)


async def test_a_prompt_is_reserved_as_the_last_ones_were_counted() -> None:
    """What stands around a short question is more than its own length."""
    limits = build_limiter(period_s=FAR, tokens_per_minute=100)

    async def start(within_s: float) -> Permit:
        return await limits.acquire("m", CallSize(2, 5), priority=Priority.BATCH, deadline=time.monotonic() + within_s)

    limits.release(await start(FAR), input_tokens=20, output_tokens=5)
    for _ in range(3):
        await start(FAR)
    with pytest.raises(ProviderError):
        await start(0.01)


async def test_a_call_waits_for_tokens_that_calls_under_way_may_not_use() -> None:
    limits = build_limiter(period_s=FAR, tokens_per_minute=100)
    under_way = await start_call(limits, max_tokens=90)
    waiting = asyncio.create_task(acquire(limits, max_tokens=90, within_s=1.0))
    await wait_for_waiters(limits, 1)
    limits.release(under_way, input_tokens=1, output_tokens=1)
    await waiting


async def test_a_reservation_above_the_limit_waits_for_an_empty_window_instead_of_for_ever() -> None:
    limits = build_limiter(period_s=0.1, tokens_per_minute=100)
    await start_call(limits, max_tokens=1)
    await start_call(limits, max_tokens=5_000, within_s=1.0)


async def test_interactive_calls_start_before_batch_calls_and_each_in_order_of_arrival() -> None:
    limits = build_limiter(concurrency=1)
    first = await acquire(limits)
    order: list[str] = []

    async def call(name: str, priority: Priority) -> None:
        permit = await acquire(limits, priority=priority)
        order.append(name)
        limits.release(permit)

    tasks = [asyncio.create_task(call(f"b{i}", Priority.BATCH)) for i in range(3)]
    await wait_for_waiters(limits, 3)
    tasks += [asyncio.create_task(call(f"i{i}", Priority.INTERACTIVE)) for i in range(3)]
    await wait_for_waiters(limits, 6)
    limits.release(first)
    await asyncio.gather(*tasks)
    assert order == ["i0", "i1", "i2", "b0", "b1", "b2"]


async def test_a_paused_model_holds_only_its_own_calls_back() -> None:
    limits = build_limiter()
    start = time.monotonic()
    limits.pause("slow", 0.15)
    held = asyncio.create_task(acquire(limits, "slow"))
    await wait_for_waiters(limits, 1)
    await acquire(limits, "quick", within_s=0.05)
    await held
    assert time.monotonic() - start >= 0.15


async def test_a_pause_of_the_account_holds_every_model_and_is_never_shortened() -> None:
    limits = build_limiter()
    start = time.monotonic()
    limits.pause(None, 0.15)
    limits.pause(None, 0.01)
    await acquire(limits, "any")
    assert time.monotonic() - start >= 0.15


async def test_a_pause_lasts_a_minute_at_most() -> None:
    limits = build_limiter()
    limits.pause("m", 1e9)
    with pytest.raises(ProviderError) as caught:
        await acquire(limits, within_s=1)
    assert 59 < (caught.value.failure.retry_after_s or 0) <= 60


@timed
async def test_a_wait_that_would_outlast_the_deadline_fails_at_once_with_its_length() -> None:
    limits = build_limiter(period_s=30, requests_per_minute=2)
    await acquire(limits)
    await acquire(limits)
    waiters = [asyncio.create_task(acquire(limits)) for _ in range(2)]
    await wait_for_waiters(limits, 2)
    start = time.monotonic()
    with pytest.raises(ProviderError, match=r"requests per minute 2.*the wait would be about 60.5 s") as caught:
        await acquire(limits, within_s=50)
    assert time.monotonic() - start < 5
    assert caught.value.failure.kind == "rate_limit"
    assert caught.value.failure.retry_after_s == pytest.approx(60, abs=1)
    for waiter in waiters:
        waiter.cancel()


async def test_the_deadline_ends_a_wait_of_unknown_length() -> None:
    limits = build_limiter(concurrency=1)
    held = await acquire(limits)
    with pytest.raises(ProviderError, match="deadline came after"):
        await acquire(limits, within_s=0.05)
    limits.release(held)
    assert limits.is_idle


async def test_a_full_queue_refuses_further_calls() -> None:
    limits = build_limiter(concurrency=1, max_waiting=2)
    held = await acquire(limits)
    waiters = [asyncio.create_task(acquire(limits)) for _ in range(2)]
    await wait_for_waiters(limits, 2)
    with pytest.raises(ProviderError, match="2 calls are already waiting"):
        await acquire(limits)
    for waiter in waiters:
        waiter.cancel()
    limits.release(held)


async def test_cancelled_waiters_leave_no_trace_even_when_granted_in_the_same_moment() -> None:
    limits = build_limiter(concurrency=1)
    held = await acquire(limits)
    granted, queued = asyncio.create_task(acquire(limits)), asyncio.create_task(acquire(limits))
    await wait_for_waiters(limits, 2)
    limits.release(held)  # grants the first waiter, whose task has not yet run …
    granted.cancel()  # … when it is cancelled
    await asyncio.wait([granted])
    limits.release(await queued)
    assert limits.is_idle
    assert limits.snapshot().waiting == 0


async def test_the_cap_covers_all_accounts_and_wakes_their_waiters() -> None:
    cap = InFlightCap(2)
    accounts = LimiterRegistry(cap, max_waiting=100)
    one, other = (accounts.get(name, LimitsRow(), None) for name in ("one", "other"))
    first, second = await acquire(one), await acquire(other)
    waiter = asyncio.create_task(acquire(other))
    await wait_for_waiters(other, 1)
    one.release(first)
    other.release(await waiter)
    other.release(second)
    assert cap.used == 0


@timed
async def test_a_place_in_the_cap_is_not_lost_to_an_account_whose_waiters_have_left() -> None:
    cap = InFlightCap(1)
    one, other, holder = (build_limiter(cap=cap) for _ in range(3))
    held = await acquire(holder)
    leaver, stayer = asyncio.create_task(acquire(one)), asyncio.create_task(acquire(other))
    await wait_for_waiters(one, 1)
    await wait_for_waiters(other, 1)
    leaver.cancel()
    await asyncio.wait([leaver])
    holder.release(held)
    await asyncio.wait_for(stayer, 1)


async def test_caller_supplied_keys_have_their_own_limits_and_idle_ones_are_forgotten() -> None:
    accounts = LimiterRegistry(InFlightCap(100), max_waiting=100, max_caller_limiters=2)
    row = LimitsRow(concurrency=1)
    mine = accounts.get("p", row, None, "digest-1")
    held = await acquire(mine)
    assert accounts.get("p", row, None, "digest-2") is not mine
    for number in range(3, 9):
        accounts.get("p", row, None, f"digest-{number}")
    assert accounts.get("p", row, None, "digest-1") is mine  # not idle, so not forgotten
    assert list(accounts) == []
    mine.release(held)


async def test_the_waiters_of_a_paused_model_do_not_delay_other_models() -> None:
    """Fifty calls wait for a paused model at two a period: a call to another model can start now, so it is not refused."""
    limits = build_limiter(period_s=30, requests_per_minute=2)
    limits.pause("slow", 40)
    waiters = [asyncio.create_task(acquire(limits, "slow", within_s=3000)) for _ in range(50)]
    await wait_for_waiters(limits, 50)

    await acquire(limits, "quick", within_s=1)
    with pytest.raises(ProviderError, match="the wait would be about"):
        await acquire(limits, "slow", within_s=100)
    for waiter in waiters:
        waiter.cancel()


@timed
async def test_a_small_call_whose_pause_has_ended_does_not_wait_for_a_larger_later_one() -> None:
    """The earlier call wants fewer tokens than are left, the later one more, which it has to wait for."""
    limits = build_limiter(period_s=0.6, tokens_per_minute=100)
    await start_call(limits, max_tokens=50)
    limits.pause("paused", 0.1)
    start = time.monotonic()
    small = asyncio.create_task(acquire(limits, "paused", max_tokens=10))
    await wait_for_waiters(limits, 1)
    large = asyncio.create_task(acquire(limits, "large", max_tokens=90))
    limits.counted.count(await small)
    assert time.monotonic() - start == pytest.approx(0.1, abs=0.05)
    await large


async def test_a_model_with_nothing_left_stands_aside_until_the_reset() -> None:
    limits = build_limiter()
    await report_limits(limits, RateLimitStatus(requests=Remaining(10, 1, 0.15)), "scarce")
    start = time.monotonic()
    await acquire(limits, "scarce")
    held = asyncio.create_task(acquire(limits, "scarce"))
    await wait_for_waiters(limits, 1)
    await acquire(limits, "plenty", within_s=0.05)
    (pause,) = limits.list_holds()
    assert (pause.model, pause.reason) == ("scarce", "requests_left")
    assert 0 < pause.seconds <= 0.15
    await held
    assert time.monotonic() - start >= 0.1


async def test_calls_wait_for_tokens_that_are_not_left_while_other_models_start() -> None:
    """Tokens are not counted before an upstream reports that it counts them."""
    limits = build_limiter()
    assert not limits.counts_tokens
    await report_limits(limits, RateLimitStatus(tokens=Remaining(1000, 100, 0.2)))
    assert limits.counts_tokens
    start = time.monotonic()
    await acquire(limits, max_tokens=50)
    large = asyncio.create_task(acquire(limits, max_tokens=500))
    await wait_for_waiters(limits, 1)
    await acquire(limits, "other", max_tokens=500, within_s=0.05)
    await large
    assert time.monotonic() - start >= 0.15


async def test_a_reading_that_reports_more_wakes_the_waiters() -> None:
    """A call that started after the last reading reports that five are left: no call waits for the reset."""
    limits = build_limiter()
    await report_limits(limits, RateLimitStatus(requests=Remaining(10, 1, 30.0)))
    last = await acquire(limits)
    waiters = [asyncio.create_task(acquire(limits)) for _ in range(3)]
    await wait_for_waiters(limits, 3)
    limits.record_headers(last, RateLimitStatus(requests=Remaining(10, 5, 30.0)))
    async with asyncio.timeout(5):
        await asyncio.gather(*waiters)


async def test_a_group_shares_its_quota_and_a_large_call_is_not_overtaken() -> None:
    limits = Limiter("account/group", LimitsRow(), is_group=True)
    await report_limits(limits, RateLimitStatus(tokens=Remaining(1000, 100, 0.2)), "one")
    order: list[str] = []

    async def call(name: str, max_tokens: int) -> None:
        limits.release(await acquire(limits, name, max_tokens=max_tokens))
        order.append(name)

    await asyncio.gather(call("two", 500), call("three", 10))
    assert order == ["two", "three"]


async def test_a_wait_for_the_upstreams_quota_beyond_the_deadline_fails_at_once() -> None:
    limits = build_limiter()
    await report_limits(limits, RateLimitStatus(requests=Remaining(10, 0, 40.0)))
    with pytest.raises(ProviderError, match=r"`account` has requested a wait; .*the wait would be about 40 s") as caught:
        await acquire(limits, within_s=20)
    assert caught.value.failure.retry_after_s == pytest.approx(40, abs=1)
    held = asyncio.create_task(acquire(limits, within_s=50))
    await wait_for_waiters(limits, 1)
    held.cancel()


async def test_invented_models_cannot_fill_the_memory_with_quotas() -> None:
    limits = build_limiter()
    for number in range(3 * MAX_QUOTAS):
        await report_limits(limits, RateLimitStatus(requests=Remaining(10, 9, 40.0)), f"invented-{number}")
    assert len(limits.list_reports()) == MAX_QUOTAS
