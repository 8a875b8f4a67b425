"""All ways in which a call ends before its answer: the race is over, the caller leaves, the server stops, a bug."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fanout.core.schema import Outcome
from tests.support.builders.dispatcher import (
    ObservedDispatcher,
    expect_failure,
    name_outcome,
    open_observed_dispatcher,
    read_text,
)
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

ODD: dict[str, Any] = {
    "providers": {"odd": {"adapter": "tests.support.adapters.misbehaving", "retries": {"max_delay_s": 0.02}}}
}


def list_codes(outcomes: list[Outcome]) -> list[str]:
    return [expect_failure(outcome).code or "" if name_outcome(outcome) != "ok" else "ok" for outcome in outcomes]


def was_notified_once_each(opened: ObservedDispatcher) -> bool:
    return set(Counter(outcome.call.index for outcome in opened.outcomes).values()) == {1}


# return_when


@timed
async def test_the_rest_is_cancelled_upstream_once_enough_have_answered(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run("hang", "400", "up/sleep-0.1", "up/429-s-3", "hang_body", return_when=1)
        await upstream.wait_until_idle()

    assert [name_outcome(outcome) for outcome in outcomes] == ["cancelled", "bad_request", "ok", "cancelled", "cancelled"]
    assert max(outcome.timing.total_s for outcome in outcomes) < 1
    assert sorted(request.model for request in upstream.abandoned) == ["hang", "hang_body"]
    assert was_notified_once_each(opened)


@timed
async def test_an_entry_has_answered_only_when_all_its_samples_have_ended(upstream: Upstream, tmp_path: Path) -> None:
    """The first entry's second sample decides when two have answered; the failing one never counts."""
    slow = {"model": "up/ok-then-sleep-0.3", "n": 2}
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run(slow, "ok", "400", "up/sleep-2", return_when=2)

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "ok", "ok", "bad_request", "cancelled"]
    assert outcomes[-1].timing.total_s == pytest.approx(0.3, abs=0.1)


async def test_an_entry_with_one_good_sample_counts(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run({"model": "up/400-then-ok", "n": 2}, "hang", return_when=1)

    assert [name_outcome(outcome) for outcome in outcomes] == ["bad_request", "ok", "cancelled"]


async def test_a_race_with_too_few_answers_ends_when_all_calls_have_ended(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run("ok", "400", "hang", return_when=2, deadline_s=0.3)

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "bad_request", "timeout"]


async def test_a_race_won_by_a_call_that_needs_no_upstream_cancels_the_rest(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        outcomes = await opened.run({"model": "ok", "max_tokens": 0}, "hang", return_when=1)
        await upstream.wait_until_idle()

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "cancelled"]
    assert was_notified_once_each(opened)


# The caller leaves


@pytest.mark.parametrize("stopping", [False, True], ids=["", "while the server stops"])
@pytest.mark.parametrize("after_s", [0, 0.1])
async def test_a_caller_who_leaves_ends_every_call_and_observers_are_notified_once_each(
    upstream: Upstream, tmp_path: Path, after_s: float, stopping: bool
) -> None:
    """The calls are in flight, asleep before a retry or waiting for a place; at 0 s, their tasks have not taken a step."""
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=2) as opened:
        task = asyncio.create_task(opened.run("hang", "up/503-s-3", "hang_body", "up/sleep-0.2"))
        await asyncio.sleep(after_s)
        if stopping:
            opened.dispatcher.stop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.wait_until_idle()

    assert [name_outcome(outcome) for outcome in opened.outcomes] == ["cancelled"] * 4
    assert was_notified_once_each(opened)
    assert len(upstream.requests) == (3 if after_s else 0)


async def test_observers_are_notified_of_a_cancelled_attempt_too(upstream: Upstream, tmp_path: Path) -> None:
    """It may have been billed, so its cost must be counted."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        task = asyncio.create_task(opened.dispatcher.attempt(opened.plan("hang")[0], deadline_s=5))
        await upstream.wait_for_requests(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [(name_outcome(outcome), outcome.timing.attempts) for outcome in opened.outcomes] == [("cancelled", 1)]


# The server stops


async def test_stop_ends_calls_with_a_failure_that_gives_the_reason(upstream: Upstream, tmp_path: Path) -> None:
    """This holds for calls in flight, asleep before a retry and waiting for a place; later ones are not made at all."""
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=1) as opened:
        task = asyncio.create_task(opened.run("up/503-s-3", "hang", "up/sleep-0.1"))
        await upstream.wait_for_requests(2)
        opened.dispatcher.stop()
        outcomes = await task
        later = await opened.run("ok")
        await upstream.wait_until_idle()

    assert list_codes(outcomes) == ["server_stopping"] * 3
    assert list_codes(later) == ["server_stopping"]
    assert len(upstream.requests) == 2
    assert len(opened.outcomes) == 4


async def test_stop_leaves_finished_answers_alone(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        task = asyncio.create_task(opened.run("ok", "hang"))
        while not opened.outcomes:
            await asyncio.sleep(0.001)
        opened.dispatcher.stop()
        outcomes = await task

    assert list_codes(outcomes) == ["ok", "server_stopping"]


# Bugs


@pytest.mark.parametrize("bug", ["bug", "timeout", "cancelled"])
async def test_a_bug_in_an_adapter_is_logged_and_fails_its_own_call_alone(
    upstream: Upstream, tmp_path: Path, log_lines: list[str], bug: str
) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, more=ODD) as opened:
        broken, good, later = await opened.run(f"odd/{bug}", "odd/fine", "up/sleep-0.1")

    assert (expect_failure(broken).kind, expect_failure(broken).code, broken.timing.attempts) == (
        "internal",
        "internal_error",
        1,
    )
    assert (read_text(good), name_outcome(later)) == ("half and whole", "ok")
    assert len(log_lines) == 1
    assert "Traceback" in log_lines[0]
    assert '"provider":"odd"' in log_lines[0]
    assert was_notified_once_each(opened)


async def test_a_bug_in_the_bookkeeping_fails_its_own_call_alone(
    upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    """An observer raises, although none may: all calls are answered all the same."""
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        opened.events = RejectingList("ok")
        outcomes = await opened.run("ok", "up/say-fine", "up/sleep-0.1")

    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "ok", "ok"]
    assert len(log_lines) == 1
    assert "Traceback" in log_lines[0]


class RejectingList(list[Any]):
    """A list that rejects the outcomes of one model."""

    def __init__(self, model: str) -> None:
        self._model = model

    def append(self, event: Any) -> None:
        if event.call.target.model == self._model:
            raise ValueError(self._model)
        super().append(event)


@timed
async def test_an_account_wide_delay_holds_every_model_of_the_account(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, more=ODD) as opened:
        account, after = opened.plan("odd/account", "odd/fine")
        await opened.dispatcher.attempt(account, deadline_s=1)
        held = await opened.dispatcher.attempt(after, deadline_s=1)
        (other,) = await opened.run("ok")

    assert held.timing.queued_s == pytest.approx(0.3, abs=0.1)
    assert other.timing.queued_s < 0.1
