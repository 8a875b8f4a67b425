"""Whole answers that Fanout writes in one step are, byte for byte, those that aiohttp would write."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fanout.server import whole_response
from tests.support.client import EMBEDDED
from tests.support.server import Server, serve

BODY = json.dumps({"prompt": "The", "model": ["local/ngram-2"] * 3, "max_tokens": 4, "seed": 1, "temperature": 0}).encode()
SMALL = BODY.replace(b'["local/ngram-2", "local/ngram-2", "local/ngram-2"]', b'"local/ngram-2"')
JSON_TYPE = "Content-Type: application/json\r\n"
REQUESTS = {
    "whole": ("POST /v1/completion HTTP/1.1", JSON_TYPE, BODY),
    "small": ("POST /v1/completion HTTP/1.1", JSON_TYPE, SMALL),
    "own id": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "x-request-id: mine\r\n", BODY),
    "with a key": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "Authorization: Bearer a-key-of-16-chars\r\n", BODY),
    "packed": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "Accept-Encoding: gzip\r\n", BODY),
    "from a page": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "Origin: https://a.example\r\n", BODY),
    "last": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "Connection: close\r\n", BODY),
    "upgrade": ("POST /v1/completion HTTP/1.1", JSON_TYPE + "Connection: Upgrade\r\nUpgrade: websocket\r\n", BODY),
    "1.0": ("POST /v1/completion HTTP/1.0", JSON_TYPE, BODY),
    "1.0 kept": ("POST /v1/completion HTTP/1.0", JSON_TYPE + "Connection: keep-alive\r\n", BODY),
    "wrong": ("POST /v1/completion HTTP/1.1", JSON_TYPE, b"{"),
    "wrong type": ("POST /v1/completion HTTP/1.1", "", BODY),
    "chat": (
        "POST /v1/chat/completions HTTP/1.1",
        JSON_TYPE,
        b'{"model": "local/ngram-2", "max_tokens": 3, "messages": [{"role": "user", "content": "The"}]}',
    ),
    "list": ("GET /v1/models HTTP/1.1", "", b""),
    "head": ("HEAD /v1/models HTTP/1.1", "", b""),
    "unknown": ("GET /nowhere HTTP/1.1", "", b""),
    "text": ("GET /metrics HTTP/1.1", "", b""),
    "live": ("GET /livez HTTP/1.1", "", b""),
}
SERVERS = {"plain": {}, "history": {"FANOUT_STORE": ":memory:"}, "pages": {"FANOUT_CORS_ORIGINS": "https://a.example"}}
VARIABLE = re.compile(rb"Date: [^\r]+|x-request-id: [0-9a-f-]{36}|x-comparison-id: [0-9a-f-]{36}|Content-Length: \d+")


@asynccontextmanager
async def connect(server: Server) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


def encode(line: str, headers: str, body: bytes) -> bytes:
    return f"{line}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def read_head(server: Server, request: tuple[str, str, bytes]) -> tuple[list[bytes], bool, bool]:
    """Return the head of an answer with its variable values left out, if it has a body, and if the connection stays open."""
    async with connect(server) as (reader, writer):
        writer.write(encode(*request))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"Content-Length: (\d+)", head)
            size = int(found[1]) if found and not request[0].startswith("HEAD") else 0
            body = await reader.readexactly(size)
        writer.write(encode(*REQUESTS["live"]))
        try:
            async with asyncio.timeout(5):
                stays_open = (await reader.read(15)).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            stays_open = False
    for pattern, kind in VALUES.items():
        assert all(re.fullmatch(kind, value) for value in re.findall(pattern + rb": ([^\r]*)", head)), head
    return re.sub(VARIABLE, lambda match: match[0].split(b":")[0], head).split(b"\r\n"), len(body) > 0, stays_open


VALUES = {
    b"Date": rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
    b"x-request-id": rb"mine|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
}
"""Forms of the values that differ from answer to answer."""


@pytest.mark.parametrize("environ", SERVERS.values(), ids=SERVERS)
async def test_a_head_is_that_of_aiohttp(environ: dict[str, str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "providers.json"
    config.write_text(json.dumps(EMBEDDED))
    async with serve(config, **environ) as server:
        ours = {name: await read_head(server, request) for name, request in REQUESTS.items()}
        monkeypatch.setattr(whole_response, "IS_TESTED", False)
        theirs = {name: await read_head(server, request) for name, request in REQUESTS.items()}

    assert ours == theirs


@pytest.mark.parametrize("name", ["whole", "small", "own id", "packed", "chat", "list"])
async def test_an_ordinary_answer_is_one_write(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "providers.json"
    config.write_text(json.dumps(EMBEDDED))
    async with serve(config) as server:
        monkeypatch.delattr(web.StreamResponse, "prepare")  # without it, aiohttp sends nothing
        async with connect(server) as (reader, writer):
            writer.write(encode(*REQUESTS[name]))
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_answers_to_requests_that_were_sent_together_follow_one_another(tmp_path: Any) -> None:
    config = tmp_path / "providers.json"
    config.write_text(json.dumps(EMBEDDED))
    names = ["whole", "own id", "head", "small", "wrong", "packed", "last"]
    async with serve(config) as server, connect(server) as (reader, writer):
        writer.write(b"".join(encode(*REQUESTS[name]) for name in names))
        async with asyncio.timeout(5):
            answers = await reader.read()
            while more := await reader.read():
                answers += more

    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"200"] * 4 + [b"400"] + [b"200"] * 2
