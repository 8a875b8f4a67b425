"""Every word of the scripted upstream's language has the effect in its table, as a plain client sees it."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from tests.support.timing import timed
from tests.support.upstream.client import UpstreamClient
from tests.support.upstream.server import Upstream

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "text"])
@both
async def test_ok_answers_in_both_formats(upstream_client: UpstreamClient, stream: bool, chat: bool) -> None:
    got = await upstream_client.complete("ok", stream=stream, chat=chat)

    last = got.events[-1] if stream else got.json
    assert (got.status, got.error, got.text) == (200, None, "This is ok.")
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["object"] == ("text_completion" if not chat else "chat.completion.chunk" if stream else "chat.completion")
    assert got.is_done is stream


async def test_a_stream_has_usage_only_if_requested(upstream_client: UpstreamClient) -> None:
    without = await upstream_client.complete("tokens-500-input-7-cached-3", stream=True)
    with_usage = await upstream_client.complete(
        "tokens-500-input-7-cached-3", stream=True, stream_options={"include_usage": True}
    )

    assert not any("usage" in event for event in without.events)
    assert with_usage.events[-1]["choices"] == []
    assert with_usage.events[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 500,
        "total_tokens": 507,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


@both
async def test_n_returns_that_many_choices(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("ok", stream=stream, n=3)

    choices = [choice for answer in (got.events if stream else [got.json]) for choice in answer["choices"]]
    assert {choice["index"] for choice in choices} == {0, 1, 2}


@both
async def test_say_and_echo_determine_the_text(upstream_client: UpstreamClient, stream: bool) -> None:
    assert (await upstream_client.complete("say-hello", stream=stream)).text == "hello"
    assert json.loads((await upstream_client.complete("echo", stream=stream, seed=7)).text)["seed"] == 7
    assert (await upstream_client.complete("chunks-3", stream=stream)).text == "w0 w1 w2 "
    assert (await upstream_client.complete("surrogates", stream=stream)).text == "a \ud83d b \udc00 c"


async def test_chunks_determine_the_number_of_pieces(upstream_client: UpstreamClient) -> None:
    """100 pieces, the empty role chunk and the finish."""
    assert len((await upstream_client.complete("chunks-100", stream=True)).events) == 102


@both
async def test_a_huge_body_comes_whole(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("mb-50", stream=stream, timeout_s=20)

    assert len(got.text) == 50_000_000
    assert max(map(len, got.body.split(b"\n"))) < 70_000 if stream else len(got.body) > 50_000_000


async def test_a_huge_stream_can_be_one_line(upstream_client: UpstreamClient) -> None:
    got = await upstream_client.complete("mb-2-chunks-1", stream=True)

    assert max(map(len, got.body.split(b"\n"))) > 2_000_000


@timed
@both
@pytest.mark.parametrize("model", ["first-0.3", "tail-0.3", "chunks-31-gap-0.01"])
async def test_pauses_follow_the_first_bytes(upstream_client: UpstreamClient, stream: bool, model: str) -> None:
    got = await upstream_client.complete(model, stream=stream)

    early = stream or not model.startswith("first")  # a whole body sends nothing before its first content
    assert got.first_s < 0.3 if early else got.first_s >= 0.3
    assert got.total_s >= 0.3


@both
async def test_sleep_comes_before_everything(upstream_client: UpstreamClient, stream: bool) -> None:
    assert (await upstream_client.complete("sleep-0.1", stream=stream)).first_s >= 0.1


@both
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 529])
async def test_a_status_comes_with_an_error_body(upstream_client: UpstreamClient, stream: bool, status: int) -> None:
    got = await upstream_client.complete(f"{status}-code-some_code", stream=stream)

    assert got.status == status
    assert got.json["error"]["code"] == "some_code"
    assert not {"Retry-After", "retry-after-ms", "x-should-retry"} & set(got.headers)


@pytest.mark.parametrize(
    ("model", "header", "value"),
    [
        ("429-s-0.2", "Retry-After", "0.2"),
        ("429-s--5", "Retry-After", "-5"),
        ("429-s-soon", "Retry-After", "soon"),
        ("429-s-1e12", "Retry-After", "1e12"),
        ("429-ms-200", "retry-after-ms", "200"),
        ("503-retry-false", "x-should-retry", "false"),
        ("ok-remaining-9", "x-ratelimit-remaining-requests", "9"),
        ("429-limit-60-reset-6m0s", "x-ratelimit-reset-requests", "6m0s"),
    ],
)
async def test_headers_are_sent_literally(upstream_client: UpstreamClient, model: str, header: str, value: str) -> None:
    assert (await upstream_client.complete(model)).headers[header] == value


@timed
async def test_retry_after_can_be_a_date(upstream_client: UpstreamClient) -> None:
    got = await upstream_client.complete("429-date-2")

    assert 2 <= parsedate_to_datetime(got.headers["Retry-After"]).timestamp() - time.time() + got.total_s + 0.1 < 3.2


async def test_a_followed_redirect_arrives_at_the_same_server(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    got = await upstream_client.complete("307")

    assert got.status == 404
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions", "/moved"]


async def test_leak_repeats_the_key_and_the_address(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    message = (await upstream_client.complete("400-leak")).json["error"]["message"]

    assert upstream.origin in message
    assert len(message) > 500


@both
async def test_hang_never_answers(upstream_client: UpstreamClient, upstream: Upstream, stream: bool) -> None:
    got = await upstream_client.complete("hang", stream=stream, timeout_s=0.1)
    await upstream.wait_until_idle()

    assert got.status == 0
    assert isinstance(got.error, TimeoutError)
    assert [request.model for request in upstream.abandoned] == ["hang"]


@both
async def test_hang_body_stops_half_way(upstream_client: UpstreamClient, upstream: Upstream, stream: bool) -> None:
    got = await upstream_client.complete("hang_body", stream=stream, timeout_s=0.1)
    await upstream.wait_until_idle()

    assert isinstance(got.error, TimeoutError)
    assert got.body
    assert b'finish_reason": "stop' not in got.body
    assert upstream.abandoned == upstream.requests


@both
@pytest.mark.parametrize(
    ("model", "error", "partial"),
    [
        ("drop", aiohttp.ServerDisconnectedError, False),
        ("bad_http", aiohttp.ClientResponseError, False),
        ("cut", aiohttp.ClientPayloadError, True),
        ("rst", aiohttp.ClientError, True),
        # aiohttp 3.14's C parser drops the body without notifying its reader, so that only a timeout ends the wait.
        ("bad_chunk", (aiohttp.ClientPayloadError, TimeoutError), True),
    ],
)
async def test_a_connection_breaks_where_the_script_breaks_it(
    upstream_client: UpstreamClient,
    upstream: Upstream,
    stream: bool,
    model: str,
    error: type[Exception] | tuple[type[Exception], ...],
    partial: bool,
) -> None:
    got = await upstream_client.complete(model, stream=stream, timeout_s=0.5)
    await upstream.wait_until_closed()

    assert isinstance(got.error, error)
    assert bool(got.body) is partial
    assert not upstream.abandoned


async def test_rst_is_a_reset_and_cut_is_not(upstream: Upstream) -> None:
    """The test reads a bare socket, because the client library reports both in the same way."""
    ends = {}
    for model in ("rst", "cut"):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        body = json.dumps({"model": model}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        try:
            await reader.read(-1)
            ends[model] = "end"
        except ConnectionResetError:
            ends[model] = "reset"
        writer.close()

    assert ends == {"rst": "reset", "cut": "end"}


@both
async def test_bad_json_is_a_complete_answer_that_cannot_be_parsed(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("bad_json", stream=stream)

    assert (got.status, got.error) == (200, None)
    with pytest.raises(json.JSONDecodeError):
        _ = got.text


async def test_bad_sse_lines_stand_between_good_ones(upstream_client: UpstreamClient) -> None:
    got = await upstream_client.complete("bad_sse", stream=True)

    assert b"\nthis line is no field\n\xff\xfe\n" in got.body
    assert (got.text, got.is_done) == ("This is bad_sse.", True)
    assert (await upstream_client.complete("bad_sse")).text == "This is bad_sse."


@both
async def test_html_answers_with_a_web_page(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("html", stream=stream)

    assert (got.status, got.headers["Content-Type"], got.body[:9]) == (200, "text/html", b"<!doctype")


@both
async def test_choices_can_be_empty(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("empty_choices", stream=stream, stream_options={"include_usage": True})

    answers = got.events if stream else [got.json]
    assert [answer["choices"] for answer in answers] == [[]]
    assert "usage" in answers[-1]


@both
async def test_usage_can_be_missing(upstream_client: UpstreamClient, stream: bool) -> None:
    got = await upstream_client.complete("no_usage", stream=stream, stream_options={"include_usage": True})

    assert b'"usage"' not in got.body
    assert got.text == "This is no_usage."


async def test_a_stream_can_lack_its_last_events(upstream_client: UpstreamClient) -> None:
    unfinished = await upstream_client.complete("unfinished", stream=True)
    no_done = await upstream_client.complete("no_done", stream=True)

    assert (unfinished.text, unfinished.error, unfinished.is_done) == ("This is unfinished.", None, False)
    assert not any(event["choices"][0]["finish_reason"] for event in unfinished.events)
    assert (no_done.events[-1]["choices"][0]["finish_reason"], no_done.is_done) == ("stop", False)
    assert (await upstream_client.complete("unfinished")).json["choices"][0]["finish_reason"] is None
    assert (await upstream_client.complete("finish-eos")).json["choices"][0]["finish_reason"] == "eos"


async def test_an_error_can_come_with_status_200(upstream_client: UpstreamClient) -> None:
    whole, stream, at_once = (
        await upstream_client.complete("error-429"),
        await upstream_client.complete("error-429", stream=True),
        await upstream_client.complete("chunks-0-error-x", stream=True),
    )

    assert (whole.status, whole.json["error"]["code"]) == (200, 429)
    assert [event["error"]["code"] for event in stream.events if "error" in event] == [429]
    assert stream.events[1]["choices"][0]["delta"] == {"content": "This "}
    assert [event["error"]["code"] for event in at_once.events if "error" in event] == ["x"]


async def test_phases_follow_each_other_by_model(upstream_client: UpstreamClient) -> None:
    async def list_statuses(model: str, count: int) -> list[int]:
        return [(await upstream_client.complete(model)).status for _ in range(count)]

    assert await list_statuses("fail-2-then-ok", 4) == [500, 500, 200, 200]
    assert await list_statuses("429-s-0.2-then-ok", 2) == [429, 200]
    assert await list_statuses("429-times-2-then-drop-then-503", 5) == [429, 429, 0, 503, 503]
    assert await list_statuses("fail-1-then-ok", 2) == [500, 200]


@pytest.mark.parametrize("model", ["gpt-6-sol", "sleep", "sleep-long", "fail", "", "ok-then-"])
async def test_other_names_are_unknown_models(upstream_client: UpstreamClient, model: str) -> None:
    got = await upstream_client.complete(model)

    assert (got.status, got.json["error"]["code"]) == (404, "model_not_found")
