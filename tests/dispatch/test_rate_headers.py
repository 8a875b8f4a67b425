"""Limits that upstreams report in their headers: calls wait for them instead of being refused."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.builders.dispatcher import ObservedDispatcher, expect_failure, name_outcome, open_observed_dispatcher
from tests.support.timing import timed
from tests.support.upstream.rate_limited import RateLimitedUpstream
from tests.support.upstream.server import Upstream

LIMIT, PER_S = 10, 1.0


@pytest.mark.parametrize("model", ["up/ok", "up/sleep-0.1"])
async def test_an_account_whose_limit_is_known_is_never_refused(model: str, tmp_path: Path) -> None:
    """Of thirty-five calls at once where ten a second are allowed, none is answered with 429."""
    async with RateLimitedUpstream(LIMIT, PER_S) as upstream, open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run(model)
        outcomes = await opened.run(*[model] * 35, deadline_s=30)

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok"] * 35
    assert upstream.refusals == 0
    assert {outcome.timing.attempts for outcome in outcomes} == {1}


async def test_the_headers_of_a_stream_count_before_it_ends(tmp_path: Path) -> None:
    """Ten streams of three seconds use up one second's quota; the other calls wait for the reset, not for the streams' ends."""
    model = "up/chunks-20-gap-0.15"
    async with (
        RateLimitedUpstream(LIMIT, PER_S) as upstream,
        open_observed_dispatcher(upstream.url, tmp_path) as opened,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(opened.stream(model))
        await wait_for_headers(opened)
        group.create_task(opened.stream(*[model] * 14))
        await upstream.wait_for_requests(15)
        assert not any(request.ended_s for request in upstream.requests[:10])

    assert upstream.refusals == 0
    assert [name_outcome(outcome) for outcome in opened.outcomes] == ["ok"] * 15


async def wait_for_headers(opened: ObservedDispatcher) -> None:
    async with asyncio.timeout(5):
        while not any(limiter.list_reports() for limiter in opened.dispatcher.limiters):
            await asyncio.sleep(0.005)


@timed
async def test_nothing_starts_until_the_reset_where_nothing_is_left(upstream: Upstream, tmp_path: Path) -> None:
    """Another model of the account starts meanwhile."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("up/ok-remaining-0-reset-0.4")
        began = time.monotonic()
        held, free = await opened.run("up/ok-remaining-0-reset-0.4", "up/ok")

    assert (name_outcome(held), name_outcome(free)) == ("ok", "ok")
    assert upstream.requests[-1].arrived_s - began > 0.2
    assert held.timing.queued_s > 0.2
    assert free.timing.queued_s < 0.2


async def test_models_of_a_group_share_the_upstreams_quota(upstream: Upstream, tmp_path: Path) -> None:
    more = {
        "models": {
            "one": {"provider": "up", "id": "ok-remaining-0-reset-0.4", "kind": "chat", "limit_group": "g"},
            "two": {"provider": "up", "id": "ok", "kind": "chat", "limit_group": "g"},
        }
    }
    async with open_observed_dispatcher(upstream.url, tmp_path, more=more) as opened:
        await opened.run("one")
        (other,) = await opened.run("two")

    assert other.timing.queued_s > 0.2


async def test_the_headers_of_a_refusal_count_too(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("up/429-remaining-0-limit-5-reset-400ms-then-ok")

    assert (name_outcome(outcome), outcome.timing.attempts) == ("ok", 2)
    assert outcome.timing.queued_s > 0.2


async def test_a_wait_for_the_reset_that_the_deadline_forbids_fails_at_once(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("up/ok-remaining-0-limit-5-reset-30")
        (outcome,) = await opened.run("up/ok-remaining-0-limit-5-reset-30", deadline_s=5)

    failure = expect_failure(outcome)
    assert (failure.kind, failure.code, outcome.timing.attempts) == ("rate_limit", "queue_too_long", 0)
    assert failure.retry_after_s == pytest.approx(30, abs=2)
    assert "has requested a wait" in failure.message


@timed
async def test_a_quota_without_a_reset_holds_no_call(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = [(await opened.run("up/ok-remaining-0-limit-5"))[0] for _ in range(3)]

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok"] * 3
    assert max(outcome.timing.queued_s for outcome in outcomes) < 0.2
