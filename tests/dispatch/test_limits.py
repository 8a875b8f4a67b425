"""Calls, their retries and their account's limits: which calls wait, and which must not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fanout.api import build_request
from fanout.core.schema import Credential, Outcome
from tests.support.builders.dispatcher import ObservedDispatcher, expect_failure, name_outcome, open_observed_dispatcher
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


async def wait_until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.001)


async def run_during(first: Awaitable[list[Outcome]], then: Callable[[], Awaitable[Any]]) -> tuple[list[Outcome], Any]:
    """Return both results, where `then` begins while `first` is in flight."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(await_outcomes(first))
        result = await then()
    return task.result(), result


async def await_outcomes(outcomes: Awaitable[list[Outcome]]) -> list[Outcome]:
    return await outcomes


def add_second_account(upstream: Upstream) -> dict[str, Any]:
    """Return the configuration of a second account at the same upstream."""
    return {"providers": {"other": {"adapter": "openai", "base_url": upstream.url}}}


@timed
async def test_a_call_that_sleeps_before_its_retry_holds_no_place(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1) as opened:
        failing, good = await opened.run("up/503-s-0.4-then-ok", "ok")

    assert (name_outcome(failing), failing.timing.attempts) == ("ok", 2)
    assert name_outcome(good) == "ok"
    assert good.timing.total_s < 0.2
    assert upstream.peak == 1


@timed
async def test_a_429_with_a_delay_holds_that_model_of_that_account_and_nobody_else(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, more=add_second_account(upstream)) as opened:

        async def call_others() -> list[Outcome]:
            await wait_until(lambda: bool(upstream.requests) and bool(opened.find_limiter().snapshot().paused_models))
            return await opened.run("up/429-s-0.4-then-ok", "ok", "other/429-s-0.4-then-ok")

        (first,), (same, model, account) = await run_during(opened.run("up/429-s-0.4-then-ok"), call_others)

    assert [name_outcome(outcome) for outcome in (first, same, model, account)] == ["ok"] * 4
    assert (first.timing.attempts, same.timing.attempts) == (2, 1)
    assert 0.2 < same.timing.queued_s < 0.6
    assert model.timing.total_s < 0.2
    assert account.timing.total_s < 0.2


async def test_a_429_without_a_delay_holds_nobody(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("429")
        assert opened.find_limiter().snapshot().paused_models == ()


async def test_a_pause_lasts_a_minute_at_most(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await opened.run("up/429-s-600")
        (outcome,) = await opened.run("up/429-s-600", deadline_s=30)

    assert (expect_failure(outcome).code, outcome.timing.attempts) == ("queue_too_long", 0)
    assert 59 < (expect_failure(outcome).retry_after_s or 0) <= 60
    assert expect_failure(outcome).message.startswith(
        "`up` has requested a wait; the deadline is 30 s away; the wait would be about"
    )


@timed
async def test_models_of_one_account_share_its_limits_and_a_group_has_its_own(upstream: Upstream, tmp_path: Path) -> None:
    grouped = {"models": {"apart": {"provider": "up", "id": "sleep-0.1", "kind": "chat", "limit_group": "apart"}}}
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1, more=grouped) as opened:
        _, queued, apart = await opened.run("up/sleep-0.2", "ok", "apart")

    assert queued.timing.queued_s == pytest.approx(0.2, abs=0.1)
    assert apart.timing.queued_s < 0.1


async def test_real_usage_settles_the_token_window(upstream: Upstream, tmp_path: Path) -> None:
    """Each call reserves 900 of 1,000 tokens; the first two report that they used 10 and 900."""
    async with open_observed_dispatcher(upstream.url, tmp_path, tokens_per_minute=1000) as opened:
        small, large, late = [
            (await opened.run(f"up/input-5-tokens-{tokens}", max_tokens=900, deadline_s=10))[0] for tokens in (5, 895, 5)
        ]

    assert (name_outcome(small), name_outcome(large)) == ("ok", "ok")
    assert (expect_failure(late).kind, expect_failure(late).code, late.timing.attempts) == ("rate_limit", "queue_too_long", 0)


async def test_samples_made_by_one_call_reserve_their_tokens_together(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, tokens_per_minute=1000) as opened:
        request = build_request("hi", ["ok-text"], n=4, max_tokens=200)
        calls = opened.dispatcher.plan(replace(request, native_n=True))
        await opened.dispatcher.run(opened.plan("up/no_usage", max_tokens=300), deadline_s=5)
        (outcome,) = await opened.dispatcher.run(calls, deadline_s=5)

    assert expect_failure(outcome).code == "queue_too_long"


@timed
async def test_a_callers_own_key_has_limits_of_its_own(upstream: Upstream, tmp_path: Path) -> None:
    row: dict[str, Any] = {"api_key_env": "UP_KEY", "key_header": "X-Up-Key", "concurrency": 1}
    async with open_observed_dispatcher(upstream.url, tmp_path, environ={"UP_KEY": "sk-operators"}, **row) as opened:

        async def call_as_others() -> Sequence[Outcome]:
            await upstream.wait_for_requests(1)
            return [await call_with_own_key(opened, "sk-callers-own"), *await opened.run("ok")]

        _, (guest, ours) = await run_during(opened.run("up/sleep-0.3"), call_as_others)
        names = [limiter.name for limiter in opened.dispatcher.limiters]

    assert guest.timing.queued_s < 0.1
    assert ours.timing.queued_s > 0.1
    keys = [request.headers["authorization"] for request in upstream.requests]
    assert keys == ["Bearer sk-operators", "Bearer sk-callers-own", "Bearer sk-operators"]
    assert names == ["up"]  # a caller's limiter is nobody else's to see


async def call_with_own_key(opened: ObservedDispatcher, key: str) -> Outcome:
    credentials = {"up": Credential(SecretStr(key), "digest-of-it")}
    calls = opened.dispatcher.plan(replace(build_request("hi", ["ok"]), credentials=credentials))
    return (await opened.dispatcher.run(calls, deadline_s=5))[0]
