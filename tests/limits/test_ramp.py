"""The ramp of a cold account: twice as many starts in each period, and half as many where nothing starts."""

from __future__ import annotations

from pathlib import Path

from fanout.config.providers_file import LimitsRow
from fanout.limits.starts import StartRamp
from tests.support.builders.dispatcher import name_outcome, open_observed_dispatcher
from tests.support.builders.limiter import acquire, build_limiter
from tests.support.upstream.server import Upstream

PERIOD_S = 10.0


def start(ramp: StartRamp, now: float, most: int = 1000) -> int:
    """Start as many calls as may start; return their number."""
    started = 0
    while started < most and not ramp.compute_wait_s(now):
        ramp.reserve()
        ramp.count(now)
        started += 1
    return started


def test_each_period_may_have_twice_the_starts_of_the_one_before() -> None:
    ramp = StartRamp(3, PERIOD_S)
    assert [start(ramp, now) for now in (0.0, 9.9, 10.0, 15.0, 20.0, 30.0)] == [3, 0, 6, 0, 12, 24]


def test_an_account_that_is_used_less_cools_down_by_half_and_never_below_the_beginning() -> None:
    ramp = StartRamp(3, PERIOD_S)
    for now in (0.0, 10.0, 20.0, 30.0):
        start(ramp, now)
    assert start(ramp, 40.0, most=2) == 2
    assert start(ramp, 50.0, most=2) == 2, "24 are allowed, half of 48"
    assert start(ramp, 80.0) == 3
    assert start(ramp, 1e9) == 3


def test_the_wait_for_many_starts_counts_the_periods_that_they_need() -> None:
    ramp = StartRamp(2, PERIOD_S)
    assert start(ramp, 0.0) == 2
    waits = [round(ramp.compute_wait_s(4.0, slots)) for slots in (1, 4, 5, 12, 13)]
    assert waits == [6, 6, 16, 16, 26]


def test_starts_with_a_permit_count_before_they_have_left() -> None:
    ramp = StartRamp(1, PERIOD_S)
    ramp.reserve()
    assert ramp.compute_wait_s(0.0) > PERIOD_S
    ramp.give_back()
    assert ramp.compute_wait_s(0.0) == 0


async def test_a_limiter_keeps_its_ramp_over_other_limits() -> None:
    limits = build_limiter()
    limits.configure(LimitsRow.model_validate({"ramp": {"starts": 2}}))
    for _ in range(2):
        limits.release(await acquire(limits))
    limits.configure(LimitsRow.model_validate({"ramp": {"starts": 2}, "requests_per_minute": 100}))
    assert limits.try_acquire("m", None, 0.0) is None


async def test_calls_of_a_cold_account_reach_it_by_and_by(upstream: Upstream, tmp_path: Path) -> None:
    limits = {"ramp": {"starts": 2, "period_s": 0.1}}
    async with open_observed_dispatcher(upstream.url, tmp_path, limits=limits) as opened:
        outcomes = await opened.run(*["up/ok"] * 8)
    assert [name_outcome(outcome) for outcome in outcomes] == ["ok"] * 8
    times = [request.arrived_s for request in upstream.requests]
    assert times[2] - times[0] > 0.08
    assert times[6] - times[0] > 0.18, "two, then four"
