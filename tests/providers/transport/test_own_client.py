"""Fanout's own client: the same bytes as aiohttp's, which stands in wherever its inner parts may be others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from fanout.config.settings import load_settings
from fanout.core.errors import ProviderError
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.openai.azure import Azure
from fanout.providers.transport.http import HttpProvider
from fanout.providers.transport.own_client import (
    MAX_BODY_BYTES,
    MAX_EARLY_HEADS,
    MAX_HEADS,
    TESTED_VERSIONS,
    UNUSUAL_HEADERS,
    OwnClient,
)
from tests.support.builders.settings import write_providers_file
from tests.support.openai_format import build_choice, build_chunk, build_openai, encode_chunks
from tests.support.provider_calls import build_adapter, build_call, collect_stream, open_session
from tests.support.upstream.raw import encode_head, encode_response, serve_raw
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.skipif(not TESTED_VERSIONS, reason="the tests run by aiohttp's client")
ANSWER = encode_response(json.dumps({"choices": [build_choice("Hello")]}).encode(), "application/json")
ROW_HEADERS = {"user-agent": "mine", "X-Team": "a b", "Host": "models.example", "Accept": "text/plain"}


def get_own_client(provider: HttpProvider) -> OwnClient:
    assert provider.own_client is not None
    return provider.own_client


async def record_request(
    make: type[HttpProvider], headers: Mapping[str, str], own_key: str | None, *, may_write_heads: bool
) -> tuple[bytes, bytes]:
    """Return the head and the body of a second request as they stand on the wire, but for the port."""
    async with serve_raw(ANSWER) as raw, open_session(may_write_heads=may_write_heads) as session:
        provider = build_adapter(make, raw.url, session=session, headers=headers)
        for _ in range(2):
            call = build_call(provider, "a/b", own_key=own_key)
            await asyncio.gather(provider.complete(call), return_exceptions=True)
        assert raw.heads[0] == raw.heads[1]
    return raw.heads[1].replace(raw.origin.removeprefix("http://").encode(), b"HOST"), raw.bodies[1]


@pytest.mark.parametrize("own_key", [None, "key-of-a-caller"])
@pytest.mark.parametrize("headers", [{}, ROW_HEADERS], ids=["plain", "with the row's headers"])
@pytest.mark.parametrize("make", [OpenAi, Azure, Anthropic, Gemini])
async def test_both_clients_send_the_same_bytes(
    make: type[HttpProvider], headers: Mapping[str, str], own_key: str | None
) -> None:
    ours = await record_request(make, headers, own_key, may_write_heads=True)
    assert ours == await record_request(make, headers, own_key, may_write_heads=False)


@pytest.mark.parametrize("may_write_heads", [True, False], ids=["own", "aiohttp"])
async def test_heads_before_the_answers_own_are_passed_over(may_write_heads: bool) -> None:
    """Early hints, and a 100 that nobody waits for."""
    early = encode_head(status=100) + encode_head("Link: </style.css>", status=103)
    async with serve_raw(early, 0.01, early + ANSWER) as raw, open_session(may_write_heads=may_write_heads) as session:
        provider = build_openai(raw.url, session=session)
        assert (await provider.complete(build_call(provider))).choices[0].message.text == "Hello"


@pytest.mark.parametrize("may_write_heads", [True, False], ids=["own", "aiohttp"])
@pytest.mark.parametrize("late", [ANSWER.replace(b"Hello", b"Other"), ANSWER[:9], b"\r\n"], ids=["answer", "part", "blank"])
async def test_what_came_on_an_idle_connection_is_no_answer_to_the_next_call(late: bytes, may_write_heads: bool) -> None:
    """The next call may be another caller's."""
    async with serve_raw(ANSWER, 0.01, late) as raw, open_session(may_write_heads=may_write_heads) as session:
        provider = build_openai(raw.url, session=session)
        for _ in range(3):
            assert (await provider.complete(build_call(provider))).choices[0].message.text == "Hello"
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("may_write_heads", [True, False], ids=["own", "aiohttp"])
async def test_a_stated_length_of_any_number_of_digits_is_read(may_write_heads: bool) -> None:
    answer = ANSWER.replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
    async with serve_raw(answer) as raw, open_session(may_write_heads=may_write_heads) as session:
        provider = build_openai(raw.url, session=session)
        assert (await provider.complete(build_call(provider))).choices[0].message.text == "Hello"
        assert (await collect_stream(provider, build_call(provider)))[1].choices[0].message.text == "Hello"


async def test_heads_before_the_answers_own_have_a_bound() -> None:
    """They are no part of the answer, whose bytes are counted."""
    async with serve_raw(encode_head(status=103) * (MAX_EARLY_HEADS + 1) + ANSWER) as raw, open_session() as session:
        provider = build_openai(raw.url, session=session)
        with pytest.raises(ProviderError, match="not HTTP"):
            await provider.complete(build_call(provider))


async def test_no_task_is_made_for_a_request() -> None:
    """aiohttp's client makes one to write the body."""
    chunks = encode_response(encode_chunks(build_chunk("Hello", "stop")), "text/event-stream")
    made: list[object] = []

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: object, **options: object) -> asyncio.Task[object]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)  # type: ignore[arg-type]

    async with serve_raw(ANSWER) as whole, serve_raw(chunks) as streamed, open_session() as session:
        await complete_and_stream(session, whole.url, streamed.url)  # opens the connections, which takes tasks
        asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]
        await complete_and_stream(session, whole.url, streamed.url)
        asyncio.get_running_loop().set_task_factory(None)
    assert not made


async def complete_and_stream(session: aiohttp.ClientSession, whole: str, streamed: str) -> None:
    provider = build_openai(whole, session=session)
    assert (await provider.complete(build_call(provider))).choices[0].message.text == "Hello"
    provider = build_openai(streamed, session=session)
    assert (await collect_stream(provider, build_call(provider)))[1].choices[0].message.text == "Hello"


async def test_only_tested_versions_of_aiohttp_are_used_by_their_inner_parts(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of aiohttp must not break a call."""
    async with open_session() as session:
        assert build_openai(upstream.url, session=session).own_client is not None
        for version in ("3.13.9", "3.15.0", "4.0.0a1"):
            monkeypatch.setattr(aiohttp, "__version__", version)
            provider = build_openai(upstream.url, session=session)
            assert provider.own_client is None
        assert (await provider.complete(build_call(provider, "say-one"))).choices[0].message.text == "one"


async def test_a_variable_leaves_all_requests_to_aiohttp(upstream: Upstream, tmp_path: Path) -> None:
    path = write_providers_file(upstream.url, tmp_path)
    for client in ("own", "aiohttp"):
        async with open_dispatcher(load_settings(path, {"FANOUT_HTTP_CLIENT": client})) as dispatcher:
            provider = dispatcher.upstreams._providers["up"]
            assert isinstance(provider, OpenAi)
            assert (provider.own_client is not None) == (client == "own")


async def test_what_is_out_of_the_ordinary_is_left_to_aiohttp(upstream: Upstream) -> None:
    """A long body, which is written in pieces; headers that change how a body is sent; a connector that is not ours."""
    async with open_session() as session:
        provider = build_openai(upstream.url, session=session)
        client, url = get_own_client(provider), URL(upstream.url)
        for name in UNUSUAL_HEADERS:
            assert client.prepare(url, CIMultiDict({name: "1"}), is_shared=True) is None
        assert client.prepare(URL("ftp://127.0.0.1/"), CIMultiDict(), is_shared=True) is None
        for length, count in ((MAX_BODY_BYTES, 0), (1, 1)):
            await provider.complete(build_call(provider, "ok", prompt="x" * length))
            assert len(client._prepared) == count
    async with aiohttp.ClientSession() as session:
        assert build_openai(upstream.url, session=session).own_client is None


async def test_heads_that_are_kept_are_few_and_hold_no_callers_key(upstream: Upstream) -> None:
    """Callers choose the names of models, which are part of some hosts' addresses."""
    async with open_session() as session:
        provider = build_adapter(Azure, upstream.origin, session=session)
        client = get_own_client(provider)
        await asyncio.gather(provider.complete(build_call(provider, own_key="key-of-a-caller")), return_exceptions=True)
        assert not client._prepared
        for number in range(MAX_HEADS + 9):
            await asyncio.gather(provider.complete(build_call(provider, f"m{number}")), return_exceptions=True)
            assert len(client._prepared) <= MAX_HEADS
        assert client._prepared
