"""Streamed calls: the order of pieces, no retry after the first, a slow reader, an early end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fanout.core.schema import Delta, Outcome
from fanout.dispatch.in_flight import BUFFER_BYTES
from tests.support.builders.dispatcher import (
    ObservedDispatcher,
    expect_failure,
    name_outcome,
    open_observed_dispatcher,
    read_text,
)
from tests.support.upstream.server import Upstream

Piece = Delta | Outcome


async def collect_pieces(
    opened: ObservedDispatcher, *models: Any, deadline_s: float = 5.0, return_when: int | None = None
) -> list[Piece]:
    calls = opened.plan(*models)
    async with aclosing(opened.dispatcher.stream(calls, deadline_s=deadline_s, return_when=return_when)) as pieces:
        return [piece async for piece in pieces]


def sort_outcomes(pieces: list[Piece]) -> list[Outcome]:
    """Return the outcomes in the order of the calls."""
    outcomes = [piece for piece in pieces if isinstance(piece, Outcome)]
    return sorted(outcomes, key=lambda outcome: outcome.call.index)


def join_text(pieces: list[Piece], call_index: int) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta) and piece.call_index == call_index)


async def test_pieces_arrive_as_they_are_made_and_each_call_ends_with_its_outcome(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        pieces = await collect_pieces(opened, "up/chunks-5-gap-0.05", "ok", "up/chunks-5-gap-0.05", "nobody")

    outcomes = sort_outcomes(pieces)
    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "ok", "ok", "not_found"]
    assert [join_text(pieces, index) for index in range(4)] == ["w0 w1 w2 w3 w4 ", "This is ok.", "w0 w1 w2 w3 w4 ", ""]
    assert join_text(pieces, 0) == read_text(outcomes[0])
    arrival = [piece.call_index if isinstance(piece, Delta) else f"end {piece.call.index}" for piece in pieces]
    for index in range(3):
        assert arrival.index(f"end {index}") > max(place for place, name in enumerate(arrival) if name == index)
    assert arrival.index("end 1") < arrival.index("end 0")
    changes = [name for name, before in zip(arrival, [None, *arrival], strict=False) if name in (0, 2) and name != before]
    assert len(changes) > 4, "two models that speak at the same time are interleaved"


async def test_the_time_of_the_first_token_is_measured(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = sort_outcomes(await collect_pieces(opened, "up/first-0.2-tail-0.2"))

    first_s, whole_s = outcome.timing.first_token_s or 0.0, outcome.timing.call_s or 0.0
    assert (first_s > 0.19, whole_s > first_s + 0.19) == (True, True)


@pytest.mark.parametrize(
    ("model", "attempts"), [("drop", 3), ("503", 3), ("cut", 1), ("rst", 1), ("unfinished", 1), ("error-502", 1)]
)
async def test_a_call_is_not_retried_once_a_piece_is_delivered(
    upstream: Upstream, tmp_path: Path, model: str, attempts: int
) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        pieces = await collect_pieces(opened, model)

    (outcome,) = sort_outcomes(pieces)
    assert (outcome.timing.attempts, len(upstream.requests)) == (attempts, attempts)
    assert (expect_failure(outcome).partial or "") == join_text(pieces, 0)
    assert bool(join_text(pieces, 0)) is (attempts == 1)


async def test_a_stream_that_fails_before_its_first_piece_is_retried(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        pieces = await collect_pieces(opened, "up/fail-2-then-ok")

    assert (join_text(pieces, 0), sort_outcomes(pieces)[0].timing.attempts) == ("This is fail-2-then-ok.", 3)


async def test_text_that_arrived_before_the_deadline_is_kept(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        flowing, hung, silent = sort_outcomes(
            await collect_pieces(opened, "up/chunks-100-gap-0.02", "hang_body", "hang", deadline_s=0.3)
        )
        await upstream.wait_until_idle()

    for outcome in (flowing, hung, silent):
        assert expect_failure(outcome).code == "deadline_exceeded"
    assert (expect_failure(flowing).partial or "").startswith("w0 w1 w2 ")
    assert expect_failure(hung).partial
    assert expect_failure(silent).partial is None
    assert len(upstream.abandoned) == 3


async def test_once_enough_have_answered_the_rest_is_cancelled_with_its_text_so_far(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        pieces = await collect_pieces(opened, "hang_body", "up/sleep-0.1", "hang", return_when=1)
        await upstream.wait_until_idle()

    outcomes = sort_outcomes(pieces)
    assert [name_outcome(outcome) for outcome in outcomes] == ["cancelled", "ok", "cancelled"]
    assert expect_failure(outcomes[0]).partial == join_text(pieces, 0) != ""
    assert len(upstream.abandoned) == 2
    assert len(opened.outcomes) == 3


async def test_a_reader_who_leaves_ends_every_call_upstream(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, concurrency=2) as opened:
        calls = opened.plan("up/chunks-100-gap-0.05", "hang", "ok")
        async with aclosing(opened.dispatcher.stream(calls, deadline_s=5)) as pieces:
            await anext(pieces)
        await upstream.wait_until_idle()
        assert opened.find_limiter().is_idle

    assert len(upstream.abandoned) == 2
    assert sorted(outcome.call.index for outcome in opened.outcomes) == [0, 1, 2]
    assert {name_outcome(outcome) for outcome in opened.outcomes} == {"cancelled"}


async def test_stop_ends_streams_with_their_text_so_far(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        pieces: list[Piece] = []
        async for piece in opened.dispatcher.stream(opened.plan("hang_body", "hang"), deadline_s=5):
            if not pieces:
                opened.dispatcher.stop()
            pieces.append(piece)

    assert [expect_failure(outcome).code for outcome in sort_outcomes(pieces)] == ["server_stopping"] * 2
    assert expect_failure(sort_outcomes(pieces)[0]).partial == join_text(pieces, 0) != ""


async def test_silence_yields_empty_bursts(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        bursts = opened.dispatcher.stream_bursts(opened.plan("up/sleep-0.3"), deadline_s=5, silence_s=0.1)
        silences = [not burst async for burst in bursts]

    assert silences[:2] == [True, True]
    assert not all(silences)


# A slow reader


async def test_a_slow_reader_slows_its_own_upstream_and_costs_bounded_memory(upstream: Upstream, tmp_path: Path) -> None:
    """20 MB wait upstream while the reader is busy; another model's short answer is not delayed."""
    environ = {"FANOUT_MAX_ANSWER_BYTES": str(30_000_000)}
    async with open_observed_dispatcher(upstream.url, tmp_path, environ=environ, timeout_s=10) as opened:
        calls = opened.plan("up/mb-20", "up/chunks-20-gap-0.005")
        bursts = aiter(opened.dispatcher.stream_bursts(calls, deadline_s=10))
        pieces = list(await anext(bursts))
        await asyncio.sleep(1)  # the reader is busy
        async with asyncio.timeout(5):
            while len(opened.outcomes) < 1:  # the short answer has ended meanwhile
                await asyncio.sleep(0.01)
        assert [request.ended_s is None for request in upstream.requests_for("mb-20")] == [True]
        burst = await anext(bursts)
        held = sum(len(piece.text) for piece in burst if isinstance(piece, Delta))
        pieces += burst
        async for burst in bursts:
            pieces += burst

    large, small = sort_outcomes(pieces)
    assert BUFFER_BYTES / 2 < held < BUFFER_BYTES + 70_000
    assert len(read_text(large)) == len(join_text(pieces, 0)) == 20_000_000
    assert (large.timing.reader_limited, small.timing.reader_limited) == (True, False)


@pytest.mark.parametrize("model", ["thinking", "calling", "certain"])
async def test_pieces_without_text_wait_for_the_reader_too(upstream: Upstream, tmp_path: Path, model: str) -> None:
    """Half a megabyte each of reasoning, tool calls and log probabilities."""
    more = {"providers": {"odd": {"adapter": "tests.support.adapters.misbehaving"}}}
    async with open_observed_dispatcher(upstream.url, tmp_path, more=more) as opened:
        bursts = aiter(opened.dispatcher.stream_bursts(opened.plan(f"odd/{model}"), deadline_s=5))
        await anext(bursts)
        await asyncio.sleep(0.05)
        held = [piece async for burst in bursts for piece in burst]

    assert sort_outcomes(held)[0].timing.reader_limited


# Bugs


async def test_a_bug_in_an_adapters_stream_fails_its_own_call_and_keeps_its_text(
    upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    more = {"providers": {"odd": {"adapter": "tests.support.adapters.misbehaving"}}}
    async with open_observed_dispatcher(upstream.url, tmp_path, more=more) as opened:
        pieces = await collect_pieces(opened, "odd/bug", "odd/fine", "odd/endless", "ok")

    broken, good, endless, other = sort_outcomes(pieces)
    assert (expect_failure(broken).kind, expect_failure(broken).partial) == ("internal", "half")
    assert (name_outcome(good), name_outcome(other)) == ("ok", "ok")
    assert (expect_failure(endless).code, expect_failure(endless).partial) == ("stream_truncated", "half")
    assert [line for line in log_lines if "Traceback" in line and "KeyError" in line]
