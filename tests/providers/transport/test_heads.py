"""Heads of providers' answers, as long as hosts and their proxies make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fanout.providers.transport.connection_errors import MAX_HEAD_BYTES, MAX_HEADERS
from tests.support.builders.settings import write_providers_file
from tests.support.dialects import post
from tests.support.openai_format import build_choice, build_chunk, encode_chunks
from tests.support.server import serve
from tests.support.upstream.raw import encode_chunk, encode_head, serve_raw

WHOLE = json.dumps({"choices": [build_choice("Hello world")]}).encode()
EVENTS = encode_chunks(build_chunk("Hello world"), build_chunk(finish="stop"))


@pytest.mark.parametrize(
    "lines",
    [
        [f"Content-Security-Policy: {'a ' * (MAX_HEAD_BYTES // 2 - 100)}"],
        [f"Set-Cookie: c{number}={'x' * 300}" for number in range(200)],
        [f"X-Route-{number}: yes" for number in range(3000)],
    ],
    ids=["one long line", "long lines", "many lines"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_head_of_64_kib_is_read(lines: list[str], stream: bool, tmp_path: Path) -> None:
    """Security headers alone may have more than 8 KiB."""
    head = encode_head(*lines, "Transfer-Encoding: chunked")
    body = encode_chunk(EVENTS if stream else WHOLE) + encode_chunk(b"")
    async with serve_raw(head + body) as raw, serve(write_providers_file(raw.url, tmp_path)) as server:
        reply = await post(server, "/v1/completion", model="up/m", prompt="hi", stream=stream)
    choices = reply.choice_pieces(0) if stream else reply.choices
    assert ("".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]) == ("Hello world", "stop")


@pytest.mark.parametrize("lines", [[f"X-Long: {'a' * 2 * MAX_HEAD_BYTES}"], ["X: y"] * (MAX_HEADERS + 1)])
async def test_a_larger_head_is_told_by_its_size_and_not_requested_again(lines: list[str], tmp_path: Path) -> None:
    head = encode_head(*lines, f"Content-Length: {len(WHOLE)}")
    async with serve_raw(head + WHOLE) as raw, serve(write_providers_file(raw.url, tmp_path)) as server:
        error = (await post(server, "/v1/completion", model="up/m", prompt="hi")).error
    sentence = "`up` sent a head with a line of over 65,536 bytes, or over 4,096 lines"
    assert (error["code"], error["message"]) == ("head_too_large", sentence)
    assert len(raw.bodies) == 1
