"""Streamed calls: pieces in order of arrival, nothing asked again once a piece is out, a slow reader, an early end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fanout.core.schema import Delta, Outcome
from fanout.dispatch.in_flight import BUFFER_BYTES
from tests.support.dispatching import Opened, dispatching, failed, text, word
from tests.support.upstreams import Upstream

Piece = Delta | Outcome


async def streamed(opened: Opened, *models: Any, deadline_s: float = 5.0, return_when: int | None = None) -> list[Piece]:
    calls = opened.calls(*models)
    async with aclosing(opened.dispatcher.stream(calls, deadline_s=deadline_s, return_when=return_when)) as pieces:
        return [piece async for piece in pieces]


def outcomes_of(pieces: list[Piece]) -> list[Outcome]:
    """In the order of the calls."""
    outcomes = [piece for piece in pieces if isinstance(piece, Outcome)]
    return sorted(outcomes, key=lambda outcome: outcome.call.index)


def said(pieces: list[Piece], call_index: int) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta) and piece.call_index == call_index)


async def test_pieces_come_as_they_are_made_and_each_call_ends_with_its_outcome(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        pieces = await streamed(opened, "up/chunks-5-gap-0.05", "ok", "up/chunks-5-gap-0.05", "nobody")

    outcomes = outcomes_of(pieces)
    assert [word(outcome) for outcome in outcomes] == ["ok", "ok", "ok", "not_found"]
    assert [said(pieces, index) for index in range(4)] == ["w0 w1 w2 w3 w4 ", "This is ok.", "w0 w1 w2 w3 w4 ", ""]
    assert said(pieces, 0) == text(outcomes[0])
    arrival = [piece.call_index if isinstance(piece, Delta) else f"end {piece.call.index}" for piece in pieces]
    for index in range(3):
        assert arrival.index(f"end {index}") > max(place for place, name in enumerate(arrival) if name == index)
    assert arrival.index("end 1") < arrival.index("end 0")
    changes = [name for name, before in zip(arrival, [None, *arrival], strict=False) if name in (0, 2) and name != before]
    assert len(changes) > 4, "two models that speak at the same time are interleaved"


async def test_the_first_token_has_its_time(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        (outcome,) = outcomes_of(await streamed(opened, "up/first-0.2-tail-0.2"))

    assert outcome.timing.first_token_s == pytest.approx(0.2, abs=0.1)
    assert outcome.timing.call_s == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("model", "attempts"), [("drop", 3), ("503", 3), ("cut", 1), ("rst", 1), ("unfinished", 1), ("error-502", 1)]
)
async def test_nothing_is_asked_again_once_a_piece_is_out(
    upstream: Upstream, tmp_path: Path, model: str, attempts: int
) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        pieces = await streamed(opened, model)

    (outcome,) = outcomes_of(pieces)
    assert (outcome.timing.attempts, len(upstream.requests)) == (attempts, attempts)
    assert (failed(outcome).partial or "") == said(pieces, 0)
    assert bool(said(pieces, 0)) is (attempts == 1)


async def test_a_stream_that_fails_before_its_first_piece_is_asked_again(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        pieces = await streamed(opened, "up/fail-2-then-ok")

    assert (said(pieces, 0), outcomes_of(pieces)[0].timing.attempts) == ("This is fail-2-then-ok.", 3)


async def test_what_had_come_when_the_deadline_came_is_kept(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        flowing, hung, silent = outcomes_of(
            await streamed(opened, "up/chunks-100-gap-0.02", "hang_body", "hang", deadline_s=0.3)
        )
        await upstream.quiet()

    for outcome in (flowing, hung, silent):
        assert failed(outcome).code == "deadline_exceeded"
    assert (failed(flowing).partial or "").startswith("w0 w1 w2 ")
    assert failed(hung).partial
    assert failed(silent).partial is None
    assert len(upstream.abandoned) == 3


async def test_the_rest_is_cancelled_with_its_text_so_far_once_enough_have_answered(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        pieces = await streamed(opened, "hang_body", "up/sleep-0.1", "hang", return_when=1)
        await upstream.quiet()

    outcomes = outcomes_of(pieces)
    assert [word(outcome) for outcome in outcomes] == ["cancelled", "ok", "cancelled"]
    assert failed(outcomes[0]).partial == said(pieces, 0) != ""
    assert len(upstream.abandoned) == 2
    assert len(opened.outcomes) == 3


async def test_a_reader_who_leaves_ends_every_call_upstream(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path, concurrency=2) as opened:
        calls = opened.calls("up/chunks-100-gap-0.05", "hang", "ok")
        async with aclosing(opened.dispatcher.stream(calls, deadline_s=5)) as pieces:
            await anext(pieces)
        await upstream.quiet()
        assert opened.limiter().is_idle

    assert len(upstream.abandoned) == 2
    assert sorted(outcome.call.index for outcome in opened.outcomes) == [0, 1, 2]
    assert {word(outcome) for outcome in opened.outcomes} == {"cancelled"}


async def test_stop_ends_streams_with_what_they_had(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        pieces: list[Piece] = []
        async for piece in opened.dispatcher.stream(opened.calls("hang_body", "hang"), deadline_s=5):
            if not pieces:
                opened.dispatcher.stop()
            pieces.append(piece)

    assert [failed(outcome).code for outcome in outcomes_of(pieces)] == ["server_stopping"] * 2
    assert failed(outcomes_of(pieces)[0]).partial == said(pieces, 0) != ""


async def test_silence_is_told(upstream: Upstream, tmp_path: Path) -> None:
    async with dispatching(upstream.url, tmp_path) as opened:
        bursts = opened.dispatcher.stream_bursts(opened.calls("up/sleep-0.3"), deadline_s=5, silence_s=0.1)
        silences = [not burst async for burst in bursts]

    assert silences[:2] == [True, True]
    assert not all(silences)


# A slow reader


async def test_a_slow_reader_slows_its_own_upstream_and_costs_bounded_memory(upstream: Upstream, tmp_path: Path) -> None:
    """20 MB wait upstream while nobody reads; a neighbour's short answer comes in its own time."""
    environ = {"FANOUT_MAX_ANSWER_BYTES": str(30_000_000)}
    async with dispatching(upstream.url, tmp_path, environ=environ, timeout_s=10) as opened:
        calls = opened.calls("up/mb-20", "up/chunks-20-gap-0.005")
        bursts = aiter(opened.dispatcher.stream_bursts(calls, deadline_s=10))
        pieces = list(await anext(bursts))
        await asyncio.sleep(1)  # the reader is busy
        assert [request.ended_s is None for request in upstream.of("mb-20")] == [True]
        burst = await anext(bursts)
        held = sum(len(piece.text) for piece in burst if isinstance(piece, Delta))
        pieces += burst
        async for burst in bursts:
            pieces += burst

    large, small = outcomes_of(pieces)
    assert BUFFER_BYTES / 2 < held < BUFFER_BYTES + 70_000
    assert len(text(large)) == len(said(pieces, 0)) == 20_000_000
    assert (large.timing.reader_limited, small.timing.reader_limited) == (True, False)
    assert small.timing.total_s < 0.9


@pytest.mark.parametrize("model", ["thinking", "calling", "certain"])
async def test_what_is_not_text_waits_for_the_reader_too(upstream: Upstream, tmp_path: Path, model: str) -> None:
    """Reasoning, tool calls and log probabilities: half a megabyte each."""
    more = {"providers": {"odd": {"adapter": "tests.support.odd_adapter"}}}
    async with dispatching(upstream.url, tmp_path, more=more) as opened:
        bursts = aiter(opened.dispatcher.stream_bursts(opened.calls(f"odd/{model}"), deadline_s=5))
        await anext(bursts)
        await asyncio.sleep(0.05)
        held = [piece async for burst in bursts for piece in burst]

    assert outcomes_of(held)[0].timing.reader_limited


# Bugs


async def test_a_bug_in_an_adapters_stream_fails_its_own_call_and_keeps_its_text(
    upstream: Upstream, tmp_path: Path, logged: list[str]
) -> None:
    more = {"providers": {"odd": {"adapter": "tests.support.odd_adapter"}}}
    async with dispatching(upstream.url, tmp_path, more=more) as opened:
        pieces = await streamed(opened, "odd/bug", "odd/fine", "odd/endless", "ok")

    broken, good, endless, other = outcomes_of(pieces)
    assert (failed(broken).kind, failed(broken).partial) == ("internal", "half")
    assert (word(good), word(other)) == ("ok", "ok")
    assert (failed(endless).code, failed(endless).partial) == ("stream_truncated", "half")
    assert [line for line in logged if "Traceback" in line and "KeyError" in line]
