"""Counters of starts: in any period no more than the limit, whether each has an entry or many share one."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable

import pytest

from fanout.limits.arrivals import add_skew
from fanout.limits.starts import MAX_LOGGED_STARTS, StartCounter, StartSlices, StartWindow, open_window

PERIOD_S = 60.0
Open = Callable[[int, float], StartCounter]


def start_often(counter: StartCounter, until: float, rate: float, randomness: random.Random, now: float = 0.0) -> list[float]:
    """Start whenever the counter allows it, at about a rate; return the times of the starts."""
    starts: list[float] = []
    while now < until:
        if wait := counter.compute_wait_s(now):
            now += wait
            continue
        counter.reserve()
        counter.count(now)
        starts.append(now)
        now += randomness.expovariate(rate)
    return starts


def count_fullest(starts: list[float]) -> int:
    """Return the most starts of any period."""
    return max(place + 1 - bisect_left(starts, at - PERIOD_S) for place, at in enumerate(starts))


@pytest.mark.parametrize("open_counter", [StartWindow, StartSlices])
@pytest.mark.parametrize("rate", [3.0, 200.0])
def test_no_period_has_more_starts_than_the_limit_and_nearly_all_are_used(open_counter: Open, rate: float) -> None:
    starts = start_often(open_counter(600, PERIOD_S), 600.0, rate, random.Random(1))
    assert count_fullest(starts) <= 600
    assert len(starts) >= 0.97 * min(rate * 600, 6_000)


def test_a_limit_of_millions_takes_no_entry_for_each_start() -> None:
    counter = open_window(100_000_000, PERIOD_S)
    assert isinstance(counter, StartSlices)
    start_often(counter, 2 * PERIOD_S, 2_000.0, random.Random(2))
    entries = list(counter.list_starts())
    assert len(entries) <= 602
    assert sum(starts for _, starts in entries) >= 100_000


@pytest.mark.parametrize("before", [StartWindow, StartSlices])
@pytest.mark.parametrize("after", [StartWindow, StartSlices])
def test_starts_count_on_under_another_limit(before: Open, after: Open) -> None:
    counter = before(1000, PERIOD_S)
    for second in range(30):
        for _ in range(10):
            counter.reserve()
            counter.count(float(second))
    other = after(305, PERIOD_S)
    other.take_over([counter], reserved=4)
    assert other.compute_wait_s(30.0) == 0.0
    other.reserve()
    # 300 were counted and 5 are reserved: the next fits when the first ten are a period old.
    assert other.compute_wait_s(30.0) == pytest.approx(add_skew(PERIOD_S) - 30.0, abs=0.01)
    other.give_back()
    assert other.compute_wait_s(30.0) == 0.0


def test_a_log_takes_over_no_more_than_its_limit() -> None:
    counter = StartSlices(1_000_000, PERIOD_S)
    for number in range(50_000):
        counter.reserve()
        counter.count(1.0 + number // 10_000)
    other = open_window(MAX_LOGGED_STARTS, PERIOD_S)
    other.take_over([counter], reserved=0)
    # Until the last 10,000 are a period old.
    assert other.compute_wait_s(6.0) == pytest.approx(add_skew(PERIOD_S) - 1.0, abs=0.01)
    assert isinstance(other, StartWindow)
    assert len(list(other.list_starts())) == MAX_LOGGED_STARTS
