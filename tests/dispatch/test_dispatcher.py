"""Many calls at once: the order of their outcomes, one deadline over everything, retries and times."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fanout.core.usage import Cost
from tests.support.builders.dispatcher import (
    expect_completion,
    expect_failure,
    name_outcome,
    open_observed_dispatcher,
    read_text,
)
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


async def test_outcomes_are_in_the_order_of_the_calls(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run("up/sleep-0.1", "ok", "nobody", "400", "ok")

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "ok", "not_found", "bad_request", "ok"]
    assert [outcome.call.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert read_text(outcomes[1]) == "This is ok."


async def test_a_refused_call_is_answered_without_being_sent(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("nobody")

    assert expect_failure(outcome) is outcome.call.refusal
    assert outcome.timing.attempts == 0
    assert not upstream.requests


# The deadline


@timed
async def test_the_deadline_covers_the_answer(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        hung, good = await opened.run("hang", "ok", deadline_s=0.2)
        await upstream.wait_until_idle()

    assert (expect_failure(hung).kind, expect_failure(hung).code) == ("timeout", "deadline_exceeded")
    assert hung.timing.total_s == pytest.approx(0.2, abs=0.1)
    assert name_outcome(good) == "ok"
    assert [request.model for request in upstream.abandoned] == ["hang"]


@timed
async def test_the_deadline_covers_the_queue(upstream: Upstream, tmp_path: Path) -> None:
    """The second call has 0.15 s left of 0.45 s when the first ends after 0.3 s."""
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1) as opened:
        first, second = await opened.run("up/sleep-0.3", "up/sleep-0.3", deadline_s=0.45)

    assert name_outcome(first) == "ok"
    assert expect_failure(second).code == "deadline_exceeded"
    assert second.timing.queued_s == pytest.approx(0.3, abs=0.1)
    assert second.timing.total_s == pytest.approx(0.45, abs=0.1)


@timed
async def test_the_deadline_covers_the_retries(upstream: Upstream, tmp_path: Path) -> None:
    """Only two and a half attempts of 0.2 s fit into 0.5 s."""
    async with open_observed_dispatcher(
        upstream.url, tmp_path, timeout_s=0.2, retries={"attempts": 5, "max_delay_s": 0}
    ) as opened:
        (outcome,) = await opened.run("hang", deadline_s=0.5)

    assert (expect_failure(outcome).code, outcome.timing.attempts) == ("deadline_exceeded", 3)
    assert outcome.timing.total_s == pytest.approx(0.5, abs=0.15)


@timed
async def test_a_retry_that_would_cross_the_deadline_is_not_waited_for(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("up/503-s-5", deadline_s=2)

    assert (expect_failure(outcome).status, outcome.timing.attempts, opened.retries) == (503, 1, [])
    assert outcome.timing.total_s < 1


@timed
async def test_a_wait_for_limits_beyond_the_deadline_fails_at_once_with_its_length(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, requests_per_minute=1) as opened:
        first, second = await opened.run("ok", "ok", deadline_s=20)

    assert name_outcome(first) == "ok"
    assert (expect_failure(second).kind, expect_failure(second).code, second.timing.attempts) == (
        "rate_limit",
        "queue_too_long",
        0,
    )
    assert expect_failure(second).retry_after_s == pytest.approx(60, abs=1)
    assert second.timing.total_s < 1


async def test_nothing_is_sent_once_the_deadline_has_passed(upstream: Upstream, tmp_path: Path) -> None:
    """The answer would be paid for although it comes too late."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("ok")  # a connection stands open, so that sending would not have to wait for one
        (outcome,) = await opened.run("ok", deadline_s=0)

    assert (expect_failure(outcome).code, outcome.timing.attempts) == ("deadline_exceeded", 0)
    assert len(upstream.requests) == 1


# Retries


async def test_an_attempt_that_takes_too_long_is_ended_and_tried_again(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, timeout_s=0.15) as opened:
        (outcome,) = await opened.run("up/hang-then-ok")

    assert read_text(outcome) == "This is hang-then-ok."
    assert outcome.timing.attempts == 2
    assert opened.retries[0].failure.code == "attempt_timeout"
    assert len(upstream.abandoned) == 1


async def test_attempts_are_counted_and_observers_notified(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("500")

    assert (expect_failure(outcome).status, outcome.timing.attempts, len(upstream.requests)) == (500, 3, 3)
    assert [(retry.attempt, retry.failure.status) for retry in opened.retries] == [(1, 500), (2, 500)]
    assert opened.events[-1] is outcome


@timed
@pytest.mark.parametrize(
    ("model", "at_least_s", "below_s"),
    [
        ("429-s-0.3-then-ok", 0.3, 0.5),
        ("429-ms-300-then-ok", 0.3, 0.5),
        ("429-date-1-then-ok", 0.9, 2.2),
        ("503-s-0.3-then-ok", 0.3, 0.5),
        ("429-then-ok", 0.0, 0.25),
        ("429-s--5-then-ok", 0.0, 0.25),
        ("429-s-soon-then-ok", 0.0, 0.25),
        ("429-s-1e12-then-ok", 0.0, 0.25),
    ],
)
async def test_the_wait_before_a_retry_is_the_providers_where_it_makes_sense(
    upstream: Upstream, tmp_path: Path, model: str, at_least_s: float, below_s: float
) -> None:
    """The provider gives it in seconds, milliseconds or as a date; otherwise it is a short one of ours."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run(f"up/{model}")

    assert (name_outcome(outcome), outcome.timing.attempts) == ("ok", 2)
    first, second = upstream.requests
    assert first.ended_s
    assert at_least_s <= second.arrived_s - first.ended_s < below_s


@pytest.mark.parametrize(
    ("model", "attempts", "kind"),
    [
        ("400-retry-true-then-ok", 2, "ok"),
        ("503-retry-false-then-ok", 1, "server"),
        ("429-code-insufficient_quota-then-ok", 1, "quota"),
        ("429-retry-true-code-insufficient_quota-then-ok", 1, "quota"),
        ("400-then-ok", 1, "bad_request"),
        ("401-then-ok", 1, "auth"),
        ("409-then-ok", 2, "ok"),
        ("529-then-ok", 2, "ok"),
        ("501-then-ok", 1, "server"),
        ("402-s-0.01-then-ok", 2, "ok"),
        ("402-then-ok", 1, "quota"),
        ("drop-then-ok", 2, "ok"),
        ("bad_json-then-ok", 1, "malformed"),
    ],
)
async def test_only_transient_failures_are_retried(
    upstream: Upstream, tmp_path: Path, model: str, attempts: int, kind: str
) -> None:
    """The provider's word comes first, but an exhausted quota is never retried."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run(f"up/{model}")

    assert (name_outcome(outcome), outcome.timing.attempts, len(upstream.requests)) == (kind, attempts, attempts)


async def test_a_call_on_a_stale_connection_is_retried(upstream: Upstream, tmp_path: Path) -> None:
    """The upstream closed it between two calls; a POST is never repeated by aiohttp itself."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("ok")
        for connection in tuple(upstream._open):
            connection.transport.close()
        (outcome,) = await opened.run("ok")

    assert (name_outcome(outcome), outcome.timing.attempts) == ("ok", 2)
    assert (opened.retries[0].failure.kind, upstream.connections) == ("network", 2)


# Without an upstream


@pytest.mark.parametrize(("echo", "echoed"), [(None, ""), (True, "hi")])
async def test_max_tokens_0_makes_no_call(upstream: Upstream, tmp_path: Path, echo: bool | None, echoed: str) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("ok-text", max_tokens=0, echo=echo)
        single = await opened.dispatcher.attempt(outcome.call, deadline_s=1)

    assert (read_text(outcome), expect_completion(outcome).choices[0].finish_reason) == (echoed, "length")
    assert single.result == outcome.result
    assert (outcome.timing.attempts, outcome.timing.call_s) == (0, None)
    assert (outcome.cost, single.cost) == (Cost(0.0, "not_called"),) * 2, "though the model has no price"
    assert not upstream.requests


# One attempt


async def test_attempt_makes_one_attempt_only(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        call, unknown = opened.plan("500", "nobody")
        outcome = await opened.dispatcher.attempt(call, deadline_s=1)
        refused = await opened.dispatcher.attempt(unknown, deadline_s=1)

    assert (expect_failure(outcome).status, outcome.timing.attempts, len(upstream.requests)) == (500, 1, 1)
    assert name_outcome(refused) == "not_found"
    assert opened.events == [outcome, refused]


async def test_a_streamed_attempt_gives_the_whole_answer_and_the_time_of_its_first_token(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (call,) = opened.plan("up/chunks-300-gap-0.0001")
        whole = await opened.dispatcher.attempt(call, deadline_s=5)
        streamed = await opened.dispatcher.attempt(call, deadline_s=5, stream=True)

    assert read_text(streamed) == read_text(whole)
    assert expect_completion(streamed).usage == expect_completion(whole).usage
    assert whole.timing.first_token_s is None
    assert streamed.timing.first_token_s
    assert streamed.timing.call_s
    assert streamed.timing.first_token_s < streamed.timing.call_s


async def test_batch_attempts_wait_behind_interactive_calls(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1) as opened:
        first, batch, interactive = opened.plan("up/sleep-0.1", "up/say-batch", "up/say-interactive")
        async with asyncio.TaskGroup() as group:
            group.create_task(opened.dispatcher.run([first], deadline_s=5))
            await upstream.wait_for_requests(1)
            group.create_task(opened.dispatcher.attempt(batch, deadline_s=5))
            await asyncio.sleep(0)
            group.create_task(opened.dispatcher.run([interactive], deadline_s=5))

    assert [request.model for request in upstream.requests] == ["sleep-0.1", "say-interactive", "say-batch"]


# Times


@timed
async def test_waiting_for_our_limits_is_not_the_models_time(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1) as opened:
        first, second = await opened.run("up/sleep-0.2", "up/sleep-0.2")

    assert first.timing.queued_s < 0.1
    assert second.timing.queued_s == pytest.approx(0.2, abs=0.1)
    assert second.timing.call_s == pytest.approx(0.2, abs=0.1)
    assert second.timing.total_s == pytest.approx(0.4, abs=0.1)
    assert second.timing.first_token_s is None


@timed
async def test_the_models_time_is_the_successful_attempts_alone(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        start = time.monotonic()
        (outcome,) = await opened.run("up/503-sleep-0.2-s-0.2-then-ok")

    assert outcome.timing.call_s is not None
    assert outcome.timing.call_s < 0.1
    assert 0.4 <= outcome.timing.total_s <= time.monotonic() - start
