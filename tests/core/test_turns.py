"""Bodies in tiny chunks: how many of them one step of the event loop parses and reads, counted, whoever sends them."""

from __future__ import annotations

import asyncio
import json
from asyncio.events import Handle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp.streams import StreamReader

from fanout.core.turns import READ_BYTES
from fanout.providers.transport.image_download import fetch_image
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, parse_response
from tests.support.server import serve

MAX_STEP = READ_BYTES // 16 + 1
TEXT = "w" * 20_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20_000)
JSON = b"Content-Type: application/json\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"


def cut(body: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


@dataclass
class Counted:
    """The chunks of one step, and the most that a step had."""

    parsed: int = 0
    read: int = 0
    most_parsed: int = 0
    most_read: int = 0
    all_parsed: int = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted = Counted()
    run: Any = Handle._run
    parse: Any = StreamReader.end_http_chunk_receiving
    read: Any = StreamReader._read_nowait_chunk

    def count_step(handle: Handle) -> None:
        counted.parsed = counted.read = 0
        run(handle)
        counted.most_parsed = max(counted.most_parsed, counted.parsed)
        counted.most_read = max(counted.most_read, counted.read)

    def count_parsed(stream: StreamReader) -> None:
        counted.parsed += 1
        counted.all_parsed += 1
        parse(stream)

    def count_read(stream: StreamReader, size: int) -> bytes:
        counted.read += 1
        return bytes(read(stream, size))

    monkeypatch.setattr(Handle, "_run", count_step)
    monkeypatch.setattr(StreamReader, "end_http_chunk_receiving", count_parsed)
    monkeypatch.setattr(StreamReader, "_read_nowait_chunk", count_read)
    yield counted
    assert counted.all_parsed >= 20_000
    # The step that parses what is left may also be the one that reads; neither ever takes all that has been received.
    assert counted.most_parsed <= 2 * MAX_STEP
    assert counted.most_read <= 2 * MAX_STEP


@asynccontextmanager
async def serve_bytes(answer: bytes) -> AsyncIterator[str]:
    """Answer every request with these bytes, and keep its connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/completion", JSON, json.dumps({"model": "local/ngram-2", "prompt": TEXT, "max_tokens": 1}).encode(), 200),
        (
            "/v1/completion",
            JSON + b"Content-Encoding: gzip\r\n",
            b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * 4000,
            400,
        ),
        (
            "/v1/files",
            FORM,
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
            + TEXT.encode()
            + b"\r\n--b--\r\n",
            200,
        ),
    ],
    ids=["json", "gzip", "form"],
)
async def test_a_request_in_tiny_chunks_is_parsed_and_read_in_steps(
    path: str, headers: bytes, body: bytes, status: int, tmp_path: Path
) -> None:
    async with serve(write_providers_file("http://127.0.0.1:9", tmp_path), FANOUT_STORE=":memory:") as server:
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%b\r\n"
        answer = await Client(server).send_raw(head % (path.encode(), headers) + cut(body))
    assert parse_response(answer)[0] == status, answer


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_in_tiny_chunks_is_parsed_and_read_in_steps(stream: bool, tmp_path: Path) -> None:
    choice = {"index": 0, "delta" if stream else "message": {"content": TEXT}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    kind = b"text/event-stream" if stream else b"application/json"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    async with (
        serve_bytes(head + cut(b"data: %b\n\ndata: [DONE]\n\n" % body if stream else body)) as url,
        serve(write_providers_file(url, tmp_path, key_optional=True)) as server,
    ):
        reply = await Client(server).complete(model=["up/x"], stream=stream)
    assert reply.status == 200
    assert TEXT in reply.body.decode()


@pytest.mark.usefixtures("counted")
async def test_an_image_in_tiny_chunks_is_parsed_and_read_in_steps() -> None:
    async with serve_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + cut(PNG)) as url:
        image = await fetch_image(url, allowed=[ip_network("127.0.0.0/8")])
    assert image.data == PNG
