"""Calls on connections that are open already: made without a task or a coroutine, and ending as all others do."""

from __future__ import annotations

import asyncio
import cProfile
import gc
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tenacity import AsyncRetrying

import fanout
from fanout.api import build_request
from fanout.core.schema import Failure, Outcome
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.in_flight import STOPPED, InFlightCall
from fanout.dispatch.started_attempt import StartedAttempt
from fanout.providers.transport.own_client import TESTED_VERSIONS
from tests.support.builders.dispatcher import ObservedDispatcher, name_outcome, open_observed_dispatcher, read_text
from tests.support.upstream.raw import encode_head, serve_raw
from tests.support.upstream.script import FAULT_SCRIPTS
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.skipif(not TESTED_VERSIONS, reason="the tests run by aiohttp's client, whose calls are tasks")
PACKAGE = Path(fanout.__file__).parent
MAX_STEPS = 262
"""Calls of functions for one call of a request with four models, its plan included (2026-11-28)."""


async def warm(opened: ObservedDispatcher, upstream: Upstream, count: int) -> None:
    """Open connections for so many calls at once, and forget the calls that did."""
    await opened.run(*["up/sleep-0.05"] * count)
    upstream.requests.clear()
    opened.events.clear()


def list_without_tasks(opened: ObservedDispatcher) -> list[str | None]:
    """Return the models of the calls in flight that have no task."""
    running = opened.dispatcher.running.items()
    return [call.call.target.model for call, handle in running if isinstance(handle, StartedAttempt)]


def describe(outcome: Outcome) -> tuple[Any, ...]:
    """Return what does not differ between two runs."""
    result, timing = outcome.result, outcome.timing
    if isinstance(result, Failure):
        told: tuple[Any, ...] = (result.kind, result.code, result.status, result.message.split(" in ")[0], result.should_retry)
    else:
        told = (result.choices, result.usage, result.model, result.request_id)
    return outcome.call.target.model, timing.attempts, timing.call_s is None, *told, outcome.cost


HANGING = ("hang", "hang_body")
SLOW = ("429-", "mb-50", "first-", "tail-", *HANGING)


@pytest.mark.parametrize(
    ("scripts", "timeout_s"),
    [([*(script for script in FAULT_SCRIPTS if not script.startswith(SLOW)), "mb-1"], 60), (HANGING, 0.2)],
    ids=["faults", "silence"],
)
async def test_every_fault_ends_as_on_a_new_connection(
    upstream: Upstream, tmp_path: Path, scripts: Sequence[str], timeout_s: float
) -> None:
    """Also the retries that follow it."""
    models, retries = [f"up/{script}" for script in scripts], {"attempts": 2, "max_delay_s": 0.02}
    async with open_observed_dispatcher(upstream.url, tmp_path, timeout_s=timeout_s, retries=retries) as opened:
        anew = await opened.run(*models)
        await warm(opened, upstream, len(models))
        connections = upstream.connections
        task = asyncio.create_task(opened.run(*models))
        await upstream.wait_for_requests(len(models))
        assert upstream.connections == connections
        assert scripts is not HANGING or set(list_without_tasks(opened)) == set(HANGING)
        again = await task
        await upstream.wait_until_idle()

    assert [describe(outcome) for outcome in again] == [describe(outcome) for outcome in anew]
    assert sorted(outcome.call.index for outcome in opened.outcomes) == list(range(len(models)))


async def test_a_call_takes_few_steps_and_leaves_no_cycles(upstream: Upstream, tmp_path: Path) -> None:
    """Counted, not timed, since the machines that this runs on are busy."""
    async with open_observed_dispatcher(upstream.url, tmp_path, requests_per_minute=10**6, tokens_per_minute=10**9) as opened:
        await warm(opened, upstream, 4)
        await run_often(opened.dispatcher, 5)
        gc.collect()
        gc.disable()
        try:
            few, many = [await count_steps(opened.dispatcher, times) for times in (5, 25)]
            assert not [kept for kept in gc.get_objects() if isinstance(kept, StartedAttempt)]
        finally:
            gc.enable()
    assert (many - few) / (20 * 4) <= MAX_STEPS


async def test_calls_that_fail_and_are_repeated_leave_no_cycles(upstream: Upstream, tmp_path: Path) -> None:
    """Until the collector came by, they held megabytes of a server whose connections break."""
    models, retries = (
        [f"up/{script}" for script in ("rst", "drop", "500", "503-then-ok", "ok")],
        {"attempts": 2, "max_delay_s": 0.01},
    )

    def list_ended() -> list[object]:
        """Return what has ended and is still there, also connections to the upstream that are closed."""
        port = upstream.url.rpartition(":")[2].partition("/")[0]
        closed = [kept for kept in gc.get_objects() if isinstance(kept, asyncio.Transport) and kept.is_closing()]
        ours = [kept for kept in closed if str((kept.get_extra_info("peername") or ("", ""))[1]) == port]
        return [*ours, *(kept for kept in gc.get_objects() if isinstance(kept, AsyncRetrying | InFlightCall | StartedAttempt))]

    async with open_observed_dispatcher(upstream.url, tmp_path, retries=retries) as opened:
        await opened.run(*models)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await opened.run(*models)
                opened.events.clear()
            await upstream.wait_until_idle()
            await asyncio.sleep(0.05)
            assert list_ended() == []
        finally:
            gc.enable()


async def run_often(dispatcher: Dispatcher, times: int) -> None:
    for number in range(times):
        calls = dispatcher.plan(build_request(f"hi {number}", ["up/ok"] * 4, max_tokens=50, temperature=0.5))
        outcomes = await dispatcher.run(calls, deadline_s=5)
        assert [name_outcome(outcome) for outcome in outcomes] == ["ok"] * 4


async def count_steps(dispatcher: Dispatcher, times: int) -> int:
    """Return the calls of functions of the package, and those that it makes of functions in C."""
    profile = cProfile.Profile()
    profile.enable()
    await run_often(dispatcher, times)
    profile.disable()
    profile.create_stats()
    stats: Any = vars(profile)["stats"]
    ours = {name for name in stats if Path(name[0]).is_relative_to(PACKAGE)}
    steps: int = sum(stats[name][1] for name in ours) + sum(
        calls[1] for name, stat in stats.items() if name[0] == "~" for caller, calls in stat[4].items() if caller in ours
    )
    return steps


async def test_what_observers_see_of_its_context_is_that_of_its_request(upstream: Upstream, tmp_path: Path) -> None:
    """And not that of the request which had opened the connection."""
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    seen: list[str] = []

    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        opened.dispatcher._observers = (lambda _: seen.append(asked.get()),)
        asked.set("first")
        await opened.run("up/ok", "up/503")
        seen.clear()
        asked.set("second")
        await opened.run("up/ok", "up/503")

    assert seen == ["second"] * len(seen)
    assert len(seen) == 4  # two answers, two retries


@pytest.mark.parametrize("how", ["the request", "the attempt", "stop"])
async def test_a_call_that_is_given_up_ends_upstream_too(upstream: Upstream, tmp_path: Path, how: str) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await warm(opened, upstream, 3)
        if how == "the attempt":
            task: asyncio.Task[Any] = asyncio.create_task(opened.dispatcher.attempt(opened.plan("hang")[0], deadline_s=5))
            count = 1
        else:
            task = asyncio.create_task(opened.run("ok", "hang", "hang_body"))
            count = 3
        await upstream.wait_for_requests(count)
        while how != "the attempt" and not opened.outcomes:
            await asyncio.sleep(0.001)
        if how == "stop":
            opened.dispatcher.stop()
            outcomes = await task
            assert [outcome.result for outcome in outcomes[1:]] == [STOPPED] * 2
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await upstream.wait_until_idle()
        assert len(upstream.abandoned) == len(opened.outcomes) - (how != "the attempt")
        assert all(limiter.is_idle for limiter in opened.dispatcher.limiters)
        assert not opened.dispatcher.running
        assert not opened.dispatcher.answers.used

    assert sorted(map(name_outcome, opened.outcomes)) == ["cancelled"] * (1 if how == "the attempt" else 2) + ["ok"] * (
        how != "the attempt"
    )


async def test_more_calls_than_are_started_at_once_are_all_made(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await warm(opened, upstream, 100)
        outcomes = await opened.run(*["up/say-fine"] * 100)

    assert [read_text(outcome) for outcome in outcomes] == ["fine"] * 100
    assert len(opened.outcomes) == 100


@pytest.mark.parametrize("when", ["before it is sent on", "before its rest is read"])
async def test_a_call_that_is_cancelled_between_two_steps_keeps_no_place(upstream: Upstream, tmp_path: Path, when: str) -> None:
    """Its head has come, and the task that is to read the rest has not begun."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        await warm(opened, upstream, 1)
        task = asyncio.create_task(opened.run("up/mb-1" if when == "before its rest is read" else "up/hang"))
        while not opened.dispatcher.running:
            await asyncio.sleep(0)
        while when == "before its rest is read" and list_without_tasks(opened):
            await asyncio.sleep(0)
        opened.dispatcher.cancel(lambda _: True, STOPPED)
        outcomes = await task
        await upstream.wait_until_idle()
        assert not opened.dispatcher.answers.used

    assert [outcome.result for outcome in outcomes] == [STOPPED]


async def test_an_answer_that_can_have_no_body_ends_as_on_a_new_connection(tmp_path: Path) -> None:
    answers = encode_head("Content-Length: 0", status=204)
    async with serve_raw(answers) as raw, open_observed_dispatcher(f"{raw.url}/v1", tmp_path) as opened:
        first, second = await opened.run("up/m"), await opened.run("up/m")

    assert describe(second[0]) == describe(first[0])
    assert name_outcome(second[0]) == "malformed"
