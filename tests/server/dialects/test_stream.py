"""`stream: true` of `POST /v1/completion`: pieces of all models interleaved, each choice's end, totals, `[DONE]`."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from tests.support.client import Client, Stream
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

SEEDED: dict[str, Any] = {"prompt": "The value of", "seed": 11, "max_tokens": 40, "temperature": 1}


def list_places(stream: Stream) -> list[int]:
    """Return the index of each chunk's choice, in order of arrival."""
    return [piece["index"] for piece in stream.pieces]


async def test_the_models_pieces_come_interleaved_as_they_are_made(client: Client) -> None:
    stream = await client.stream(model=["up/chunks-6-gap-0.05", "up/chunks-6-gap-0.05", "up/ok"])

    changes = sum(one != other for one, other in pairwise(index for index in list_places(stream) if index < 2))
    assert changes >= 6
    assert stream.arrivals_s[-1] - stream.arrivals_s[0] > 0.2, "they are passed on as they come"
    last = max(number for number, index in enumerate(list_places(stream)) if index == 2)
    assert last < len(list_places(stream)) / 2, "the quick one ends first"
    assert [stream.text(index) for index in range(3)] == ["w0 w1 w2 w3 w4 w5 "] * 2 + ["This is ok."]


async def test_a_stream_has_the_headers_of_server_sent_events(client: Client) -> None:
    stream = await client.stream(model="up/ok")

    assert stream.headers["Content-Type"] == "text/event-stream"
    assert stream.headers["Cache-Control"] == "no-store"
    assert stream.headers["X-Accel-Buffering"] == "no"
    assert stream.headers["Server"] == "fanout"
    assert "Content-Length" not in stream.headers


async def test_every_chunk_names_its_choice_and_its_answer(client: Client) -> None:
    entries = ["up/ok", {"model": "up/say-abcdef", "label": "mine", "n": 2}]
    stream = await client.stream(model=entries)

    heads = {(chunk["id"], chunk["object"], chunk["created"]) for chunk in stream.chunks}
    assert len(heads) == 1
    (head,) = heads
    assert (len(head[0]), head[1], head[2][-1]) == (36, "text_completion", "Z")
    names = {(p["index"], p["entry"], p["sample"], p["model"], p["label"]) for p in stream.pieces}
    assert names == {(0, 0, 0, "up/ok", "up/ok"), (1, 1, 0, "up/say-abcdef", "mine"), (2, 1, 1, "up/say-abcdef", "mine")}
    assert all(isinstance(piece["text"], str) and "logprobs" in piece for piece in stream.pieces)
    assert not any("error" in chunk for chunk in stream.chunks), "a top-level error would end the reading of some clients"


async def test_each_choice_ends_with_the_facts_of_its_whole_answer(client: Client) -> None:
    options: dict[str, Any] = {"model": ["up/ok-input-7-tokens-3", "up/400", "nobody", "up/no_usage"], "seed": 1}
    stream = await client.stream(**options)
    whole = await client.complete(**options)

    assert len(stream.ends) == 4
    for end, choice in zip(stream.ends, whole.choices, strict=True):
        assert set(end) == set(choice)
        for name in ("finish_reason", "provider", "upstream_model", "cost_usd", "ignored_parameters", "adjusted_parameters"):
            assert end[name] == choice[name], name
        assert end["usage"]["total_tokens"] == choice["usage"]["total_tokens"]
        assert end["timing"]["attempts"] == choice["timing"]["attempts"]
        assert (end["error"] or {}).get("code") == (choice["error"] or {}).get("code")
        assert end["text"] == ""
    last = {index: number for number, index in enumerate(list_places(stream))}
    assert all(stream.pieces[number]["finish_reason"] for number in last.values()), "nothing of a choice follows its end"


async def test_totals_come_last(client: Client) -> None:
    stream = await client.stream(model=["up/ok", "up/ok", "up/no_usage", "up/400"], metadata={"a": "b"})

    totals = stream.totals
    assert totals["usage"]["total_tokens"] == 28
    assert (totals["usage"]["unknown"], totals["cost_usd"], totals["cost_unknown"]) == (1, None, 3)
    assert set(totals["timing"]) == {"total_ms", "overhead_ms"}
    assert totals["metadata"] == {"a": "b"}


@timed
async def test_the_first_token_has_a_time(client: Client) -> None:
    stream = await client.stream(model=["up/first-0.2-tail-0.1", "up/ok"])

    slow, quick = stream.ends
    assert 190 <= slow["timing"]["ttft_ms"] < 290
    assert slow["usage"]["prediction_time_ms"] >= slow["timing"]["ttft_ms"] + 90
    assert 0 <= quick["timing"]["ttft_ms"] < 100


@pytest.mark.parametrize("options", [{}, {"n": 3}, {"echo": True, "logprobs": 3}, {"stop": ["a"]}, {"suffix": "."}], ids=str)
async def test_the_pieces_together_are_the_whole_answer(embedded_client: Client, options: dict[str, Any]) -> None:
    body = {**SEEDED, "model": ["local/ngram-2", {"model": "local/ngram-5", "top_p": 0.9}], **options}
    whole, stream = await embedded_client.complete(**body), await embedded_client.stream(**body)

    assert [stream.text(choice["index"]) for choice in whole.choices] == whole.texts
    assert [end["finish_reason"] for end in stream.ends] == [choice["finish_reason"] for choice in whole.choices]
    for end, choice in zip(stream.ends, whole.choices, strict=True):
        assert {**end["usage"], "prediction_time_ms": 0} == {**choice["usage"], "prediction_time_ms": 0}


async def test_an_answer_that_came_whole_is_a_piece_too(embedded_client: Client) -> None:
    stream = await embedded_client.stream(model="local/ngram-2", prompt="Once", max_tokens=0, echo=True)

    assert (stream.text(), stream.ends[0]["finish_reason"]) == ("Once", "length")


@pytest.mark.parametrize("echo", [False, True])
async def test_logprobs_of_the_pieces_together_are_the_whole_answers(embedded_client: Client, echo: bool) -> None:
    """Offsets run on from piece to piece."""
    body = {**SEEDED, "model": "local/ngram-3", "logprobs": 2, "n": 2, "echo": echo}
    whole, stream = await embedded_client.complete(**body), await embedded_client.stream(**body)

    for choice in whole.choices:
        parts = [p["logprobs"] for p in stream.pieces if p["index"] == choice["index"] and p["logprobs"]]
        joined = {name: [item for part in parts for item in part[name]] for name in choice["logprobs"]}
        assert len(parts) > 2
        assert joined == choice["logprobs"]
        assert joined["text_offset"][0] == 0


async def test_a_failure_after_pieces_keeps_them_and_harms_nobody(client: Client) -> None:
    stream = await client.stream(model=["up/cut-chunks-4", "up/chunks-4-gap-0.05"])

    cut, good = stream.ends
    assert stream.text(0) == "w0 w1 "
    assert (cut["finish_reason"], cut["error"]["kind"]) == ("error", "network")
    assert cut["timing"]["attempts"] == 1, "what has been shown cannot be begun anew"
    assert (stream.text(1), good["error"]) == ("w0 w1 w2 w3 ", None)


async def test_a_stream_at_its_deadline_ends_as_timeout_with_its_text(client: Client, upstream: Upstream) -> None:
    stream = await client.stream(model=["up/chunks-100-gap-0.05", "up/ok"], timeout_s=0.4)

    late, good = stream.ends
    assert stream.text(0).startswith("w0 w1 w2 ")
    assert (late["finish_reason"], late["error"]["code"]) == ("timeout", "deadline_exceeded")
    assert good["finish_reason"] == "stop"
    await upstream.wait_until_idle(1)


async def test_return_when_ends_the_rest_of_a_stream(client: Client, upstream: Upstream) -> None:
    stream = await client.stream(model=["up/chunks-100-gap-0.05", "up/first-0.2", "up/hang"], return_when="first")

    first, winner, hanging = stream.ends
    assert winner["error"] is None
    assert [end["error"]["code"] for end in (first, hanging)] == ["cancelled", "cancelled"]
    assert stream.text(0).startswith("w0 ")
    await upstream.wait_until_idle(1)
    assert len(upstream.abandoned) == 2


async def test_n_samples_stream_side_by_side(client: Client, upstream: Upstream) -> None:
    stream = await client.stream(model={"model": "up/chunks-3-gap-0.05", "seed": 4}, n=3)

    assert [stream.text(index) for index in range(3)] == ["w0 w1 w2 "] * 3
    assert sorted(request.body["seed"] for request in upstream.requests) == [4, 5, 6]
    assert [(end["entry"], end["sample"]) for end in stream.ends] == [(0, 0), (0, 1), (0, 2)]
    assert all(end["usage"]["completion_tokens"] == 4 for end in stream.ends)


async def test_overrides_hold_in_streams(client: Client) -> None:
    stream = await client.stream(model=[{"model": "up/echo", "temperature": 1}, "up/echo"], temperature=0)

    assert [json.loads(stream.text(index))["temperature"] for index in range(2)] == [1, 0]


async def test_a_client_that_leaves_a_stream_ends_its_calls(client: Client, upstream: Upstream) -> None:
    body = {"prompt": "hi", "model": ["up/chunks-500-gap-0.02", "up/hang"], "stream": True}
    async with client.server.session.post("/v1/completion", json=body) as response:
        await response.content.readany()
        response.close()

    await upstream.wait_until_idle(2)
    assert len(upstream.abandoned) == 2
    assert client.server.in_flight == 0


async def test_half_a_character_from_an_upstream_breaks_no_stream(client: Client) -> None:
    stream = await client.stream(model="up/surrogates")

    assert stream.text() == "a \ufffd b \ufffd c"


async def test_a_stream_needs_no_event_stream_in_accept(client: Client) -> None:
    stream = await client.stream(headers={"Accept": "application/json"}, model="up/ok")

    assert stream.text() == "This is ok."


async def test_many_streams_at_once_are_each_their_own(client: Client) -> None:
    async def stream_text(number: int) -> str:
        stream = await client.stream(model=f"up/say-{number}{number}{number}-gap-0.01")
        return stream.text()

    assert await asyncio.gather(*map(stream_text, range(30))) == [str(number) * 3 for number in range(30)]


async def test_a_stream_over_http_1_0_ends_with_its_connection(client: Client) -> None:
    body = json.dumps({"prompt": "hi", "model": "up/ok", "stream": True}).encode()
    head = b"POST /v1/completion HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await client.send_raw(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert b"Transfer-Encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_the_connection_of_a_finished_stream_serves_the_next_request(client: Client) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(client.server.url, connector=connector) as session:
        for _ in range(2):
            body = {"prompt": "hi", "model": "up/ok", "stream": True}
            async with session.post("/v1/completion", json=body) as response:
                assert (await response.read()).endswith(b"[DONE]\n\n")
                assert response.connection is None, "read to its end, it is free again"
