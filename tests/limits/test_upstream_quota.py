"""Estimates of an upstream's quotas between its answers: by hand, and against simulated upstreams."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.rate_limits import RateLimitStatus, Remaining
from fanout.limits.arrivals import MAX_ARRIVAL_SKEW_S
from fanout.limits.upstream_quota import MAX_HOLD_S, UpstreamQuota
from tests.support.timing import timed


def build_status(remaining: int | None, limit: int | None = None, reset_s: float | None = None) -> RateLimitStatus:
    return RateLimitStatus(Remaining(limit, remaining, reset_s))


def build_quota_after(remaining: int, limit: int | None, reset_s: float | None) -> UpstreamQuota:
    """Return a quota after one call at time 0 whose answer reported this."""
    quota = UpstreamQuota()
    quota.read(0.0, build_status(remaining, limit, reset_s), quota.start(0.0, 0))
    return quota


def count_starts(quota: UpstreamQuota, now: float, most: int = 100) -> int:
    """Return how many calls may start now."""
    for count in range(most):
        if quota.compute_wait_s(now, 0):
            return count
        quota.start(now, 0)
    return most


def test_nothing_is_held_before_the_first_reading() -> None:
    assert count_starts(UpstreamQuota(), 0.0) == 100


def test_calls_stay_within_the_rest_until_the_reset_and_within_the_limit_after_it() -> None:
    quota = build_quota_after(3, 10, 4.0)
    assert count_starts(quota, 0.0) == 3
    assert quota.compute_wait_s(1.0, 0) == pytest.approx(3.0)
    assert count_starts(quota, 3.9) == 0
    assert count_starts(quota, 4.0) == 10
    assert quota.compute_wait_s(4.0, 0) == MAX_HOLD_S


def test_without_a_known_limit_every_call_may_start_after_the_reset() -> None:
    quota = build_quota_after(0, None, 4.0)
    assert count_starts(quota, 3.9) == 0
    assert count_starts(quota, 4.0) == 100


def test_without_a_reset_nothing_is_held() -> None:
    quota = build_quota_after(0, 10, None)
    assert count_starts(quota, 0.0) == 100
    assert quota.requests
    assert quota.requests.reported == Remaining(10, 0, None)


def test_a_gradual_refill_is_not_waited_for_until_it_is_full() -> None:
    """Of sixty a minute all are used: the reset is a minute away, as OpenAI counts it."""
    quota = build_quota_after(0, 60, 60.0)
    assert quota.compute_wait_s(0.0, 0) == pytest.approx(1.0 + MAX_ARRIVAL_SKEW_S)
    assert count_starts(quota, 3.5) == 3
    assert count_starts(quota, 1000.0) >= 59


def test_a_quota_that_does_not_refill_gradually_is_waited_for_until_its_reset() -> None:
    """A fixed minute whose quota was used at once looks like a gradual refill at its end, but not at its beginning."""
    quota = UpstreamQuota()
    first, last = quota.start(0.0, 0), quota.start(0.1, 0)
    quota.read(0.2, build_status(59, 60, 60.0), first)
    quota.read(0.3, build_status(0, 60, 59.9), last)
    assert quota.compute_wait_s(0.3, 0) == pytest.approx(59.9)


def test_the_first_reading_does_not_forget_the_calls_in_flight() -> None:
    """Five calls are in flight when one of them reports that six are left, which may not include the other four."""
    quota = UpstreamQuota()
    calls = [quota.start(0.0, 0) for _ in range(5)]
    quota.read(0.1, build_status(6, 10, 5.0), calls[2])
    assert count_starts(quota, 0.1) == 2


def test_a_late_reading_does_not_raise_the_estimate_but_that_of_a_lone_call_does() -> None:
    quota = UpstreamQuota()
    early, late = quota.start(0.0, 0), quota.start(0.1, 0)
    quota.read(0.2, build_status(0, 10, 5.0), late)
    quota.read(0.3, build_status(9, 10, 5.0), early)
    assert count_starts(quota, 0.3) == 0

    quota = build_quota_after(0, 10, 5.0)
    alone = quota.start(1.0, 0)
    quota.read(1.1, build_status(4, 10, 4.0), alone)
    assert count_starts(quota, 1.1) == 4


def test_a_reading_from_before_the_reset_does_not_count_after_it() -> None:
    quota = build_quota_after(5, 10, 2.0)
    slow = quota.start(0.5, 0)
    quota.read(3.0, build_status(0, 10, 9.0), slow)
    assert count_starts(quota, 3.0) == 10


def test_a_call_that_started_just_before_the_reset_counts_after_it() -> None:
    quota = build_quota_after(5, 10, 2.0)
    quota.start(1.9, 0)
    assert count_starts(quota, 2.0) == 9


def test_a_hold_ends_after_a_minute_with_one_call_that_finds_out() -> None:
    """A day's limit is used up: one call a minute is let through, whose refusal reports it again."""
    quota = build_quota_after(0, 50, 86_400.0)
    assert quota.compute_wait_s(0.0, 0) == pytest.approx(MAX_HOLD_S)
    assert count_starts(quota, MAX_HOLD_S) == 1


def test_tokens_are_counted_as_requests_are() -> None:
    quota = UpstreamQuota()
    quota.read(0.0, RateLimitStatus(Remaining(), Remaining(1000, 400, 4.0)), quota.start(0.0, 100))
    assert quota.compute_wait_s(0.0, 300) == 0
    quota.start(0.0, 300)
    assert quota.compute_wait_s(0.0, 300) == pytest.approx(4.0)
    assert quota.compute_wait_s(0.0, 100) == 0
    assert quota.compute_wait_s(4.0, 5000) == 0, "more than the whole limit waits for the whole limit, not for ever"


def test_the_wait_of_a_queue_follows_from_the_refill_rate() -> None:
    quota = build_quota_after(0, 60, 60.0)
    assert quota.compute_wait_s(0.0, 0, requests_ahead=99) == pytest.approx(60.0)


@dataclass
class SimulatedUpstream:
    """An upstream that counts requests: in windows of `period_s`, or in a bucket that refills in that time."""

    limit: int
    period_s: float
    bucket: bool
    used: float = 0.0
    at: float = -math.inf
    refused: int = 0

    def take_request(self, now: float) -> Remaining:
        """Count a request that arrives, and return what is left."""
        if self.bucket:
            self.used = max(self.used - self.limit / self.period_s * (now - self.at), 0.0)
            self.at = now
        elif now - self.at >= self.period_s:
            self.used, self.at = 0.0, now
        if self.used > self.limit - 1 + 1e-6:
            self.refused += 1
        else:
            self.used += 1
        reset_s = self.used * self.period_s / self.limit if self.bucket else self.at + self.period_s - now
        return Remaining(self.limit, int(self.limit - self.used + 1e-6), reset_s)


@dataclass
class Simulation:
    """Many callers of one upstream, in simulated time; requests overtake each other, and answers even more."""

    upstream: SimulatedUpstream
    random: random.Random
    slowest_s: float
    quota: UpstreamQuota = field(default_factory=UpstreamQuota)
    ended: int = 0

    def run(self, calls: int) -> float:
        """Make one call, then all others as early as the quota allows; return the time at the end."""
        events: list[tuple[float, int, str, object]] = []
        now, number, waiting, last = 0.0, 0, calls - 1, 0.0

        def start() -> None:
            nonlocal number
            number += 1
            heapq.heappush(events, (now + self.random.uniform(0.001, 0.02), number, "arrives", self.quota.start(now, 0)))

        start()
        while events:
            now, _, what, detail = heapq.heappop(events)
            if what == "arrives":
                left = self.upstream.take_request(now)
                number += 1
                answered = now + self.random.uniform(0.001, self.slowest_s)
                # All is as of the request; but a moment, as some give, is nearer when it is read.
                read_s = (left.reset_s or 0.0) - (0 if self.upstream.bucket else answered - now)
                late = Remaining(left.limit, left.remaining, max(read_s, 0.0))
                heapq.heappush(events, (answered, number, "answers", (detail, late)))
            elif what == "answers":
                assert isinstance(detail, tuple)
                self.quota.read(now, RateLimitStatus(detail[1]), detail[0])
                self.ended, last = self.ended + 1, now
            while waiting and self.ended and not self.quota.compute_wait_s(now, 0):
                waiting -= 1
                start()
            if waiting and self.ended:
                number += 1
                wait = max(self.quota.compute_wait_s(now, 0), 1e-3)
                if what != "wakes" or not any(event[2] == "wakes" for event in events):
                    heapq.heappush(events, (now + wait, number, "wakes", None))
        assert not waiting
        return last


@timed
@settings(max_examples=150, deadline=None)
@given(st.sampled_from([(False, 1.0), (False, 60.0), (True, 60.0)]), st.integers(2, 30), st.floats(0.01, 0.25), st.integers())
def test_no_upstream_refuses_a_call_and_no_call_waits_in_vain(
    kind: tuple[bool, float], limit: int, slowness: float, seed: int
) -> None:
    """Windows and buckets, with answers in any order and up to a quarter of the period late.

    Four times the limit is let through without a refusal, in at most twice the time that the limit itself takes.
    """
    bucket, period_s = kind
    world = Simulation(SimulatedUpstream(limit, period_s, bucket), random.Random(seed), slowness * period_s)
    calls = 4 * limit
    took_s = world.run(calls)
    assert world.ended == calls
    assert world.upstream.refused == 0
    assert took_s < 8 * period_s
