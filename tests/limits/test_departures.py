"""Limits as the upstream sees them: no period above the limit, on new and on open connections, and hardly any room lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import Dispatcher
from fanout.limits.limiter import Limiter
from fanout.providers.transport.departures import ON_DEPARTURE, WatchedRequest
from tests.support.builders.dispatcher import ObservedDispatcher, expect_failure, name_outcome, open_observed_dispatcher
from tests.support.builders.limiter import acquire, build_limiter
from tests.support.builders.settings import write_providers_file
from tests.support.stalls import Stalls, watch_stalls
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

LIMIT, PERIOD_S, PERIODS = 20, 0.3, 3
LOOKUP_S = 0.1
LIMITS: dict[str, Any] = {"requests_per_minute": round(60 / PERIOD_S * LIMIT), "burst": LIMIT}
"""Twenty starts in any 0.3 s."""


class SlowResolver(AbstractResolver):
    """A name server that takes a third of a period: the calls that need it leave so much later than they were granted."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        await asyncio.sleep(LOOKUP_S)
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        return


@asynccontextmanager
async def open_session() -> AsyncGenerator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, resolver=SlowResolver())
    async with aiohttp.ClientSession(connector=connector, request_class=WatchedRequest) as session:
        yield session


def count_most_in_a_period(arrivals: list[float], seen: Stalls) -> int:
    """Return the most arrivals in any period, which is shorter where the loop stood still and noted one late."""
    within_s = PERIOD_S - 2 * seen.longest_s
    return max(sum(start <= other < start + within_s for other in arrivals) for start in arrivals)


def expect_limit_is_kept_and_used(arrivals: list[float], seen: Stalls) -> None:
    assert len(arrivals) == LIMIT * (PERIODS + 1)
    assert count_most_in_a_period(arrivals, seen) <= LIMIT
    assert arrivals[-LIMIT] - arrivals[0] <= PERIODS * (PERIOD_S / 0.97 + seen.longest_s)


@timed
async def test_no_period_at_the_upstream_exceeds_the_limit_after_a_burst_on_new_connections(
    upstream: Upstream, tmp_path: Path
) -> None:
    address = f"http://upstream.test:{upstream.port}/v1"
    settings = load_settings(write_providers_file(address, tmp_path, limits=LIMITS), {})
    async with open_session() as session, watch_stalls() as seen:
        opened = ObservedDispatcher(Dispatcher(settings, session))
        outcomes = await opened.run(*["up/ok"] * LIMIT * (PERIODS + 1))

    assert {name_outcome(outcome) for outcome in outcomes} == {"ok"}
    assert outcomes[0].timing.queued_s < LOOKUP_S / 2
    expect_limit_is_kept_and_used([request.arrived_s for request in upstream.requests], seen)


async def test_no_period_at_the_upstream_exceeds_the_limit_on_open_connections(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, **LIMITS) as opened:
        await opened.run(*["up/ok"] * LIMIT)
        upstream.requests.clear()
        await asyncio.sleep(PERIOD_S)
        connections = upstream.connections
        async with watch_stalls() as seen:
            await opened.run(*["up/ok"] * LIMIT * (PERIODS + 1))

    assert upstream.connections == connections
    expect_limit_is_kept_and_used([request.arrived_s for request in upstream.requests], seen)


async def call_all(limits: Limiter, upstream: Upstream, calls: int, tokens: int, max_tokens: int | None = None) -> None:
    """Make calls that use so many tokens each, all at once."""
    async with open_session() as session:

        async def call() -> None:
            permit = await acquire(limits, max_tokens=max_tokens)
            ON_DEPARTURE.set(partial(limits.counted.count, permit))
            body = {"model": "ok", "messages": [{"role": "user", "content": "hi"}]}
            async with session.post(f"http://upstream.test:{upstream.port}/v1/chat/completions", json=body) as response:
                assert response.status == 200
            limits.release(permit, 0, tokens)

        await asyncio.gather(*(call() for _ in range(calls)))


async def test_tokens_count_from_when_their_requests_have_left(upstream: Upstream) -> None:
    limits = build_limiter(period_s=PERIOD_S, tokens_per_minute=LIMIT * 50)
    async with watch_stalls() as seen:
        await call_all(limits, upstream, LIMIT * (PERIODS + 1), 50, 50)

    expect_limit_is_kept_and_used([request.arrived_s for request in upstream.requests], seen)


async def test_answers_of_unknown_length_keep_within_the_tokens_from_the_first_period_on(upstream: Upstream) -> None:
    limits = build_limiter(period_s=PERIOD_S, tokens_per_minute=LIMIT * 1000)
    async with watch_stalls() as seen:
        await call_all(limits, upstream, LIMIT * PERIODS, 1000)

    arrivals = [request.arrived_s for request in upstream.requests]
    assert count_most_in_a_period(arrivals, seen) <= LIMIT
    assert arrivals[-1] - arrivals[0] < (PERIODS + 1) * PERIOD_S + 2 * seen.longest_s


async def test_a_token_bucket_lets_the_limit_pass_at_once_and_then_its_share(upstream: Upstream) -> None:
    limits = build_limiter(period_s=PERIOD_S, tokens_per_minute=LIMIT * 50, token_bucket=True)
    async with watch_stalls() as seen:
        await call_all(limits, upstream, LIMIT * 3, 50, 50)

    arrivals = [request.arrived_s for request in upstream.requests]
    for number, arrived in enumerate(arrivals):
        refilled = LIMIT * (arrived - arrivals[0] + 2 * seen.longest_s) / PERIOD_S
        assert number + 1 <= LIMIT + refilled + 1
    # A window would let the second twenty wait for a whole period.
    assert arrivals[LIMIT + 5] - arrivals[0] < PERIOD_S / 2 + 2 * seen.longest_s
    assert arrivals[-1] - arrivals[0] <= 2 * PERIOD_S / 0.97 + 2 * seen.longest_s


async def test_calls_that_found_no_connection_leave_the_limit_to_others(upstream: Upstream, tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        row: dict[str, Any] = {"requests_per_minute": 2, "tokens_per_minute": 1000, "retries": {"attempts": 1}}
        async with open_observed_dispatcher(address, tmp_path, **row) as opened:
            failed = [(await opened.run("up/ok", max_tokens=900))[0] for _ in range(4)]

    assert {expect_failure(outcome).code for outcome in failed} == {"connect_error"}


@pytest.mark.parametrize("model", ["drop", "hang", "503"])
async def test_calls_that_failed_after_they_had_left_count(upstream: Upstream, tmp_path: Path, model: str) -> None:
    row: dict[str, Any] = {"requests_per_minute": 1, "retries": {"attempts": 1}, "timeout_s": 1}
    async with open_observed_dispatcher(upstream.url, tmp_path, **row) as opened:
        await opened.run(f"up/{model}", deadline_s=0.2)
        (refused,) = await opened.run("up/ok")

    assert expect_failure(refused).code == "queue_too_long"


async def test_a_call_counts_that_had_left_before_its_caller_did(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, requests_per_minute=1) as opened:
        task = asyncio.create_task(opened.run("up/hang"))
        await upstream.wait_for_requests(1)
        task.cancel()
        await asyncio.wait([task])
        (refused,) = await opened.run("up/ok")

    assert expect_failure(refused).code == "queue_too_long"
