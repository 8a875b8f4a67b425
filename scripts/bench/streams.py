"""Streams: a client of our own that reads them to their ends, and the figures taken with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median

from bench import Bench, each, most_lost, total_errors
from load import chat, comparison
from machine import BenchError
from servers import Server, fanout, floor, upstream
from table import Row

CHUNKS, GAP_MS = 100, 2
TOKEN = b" token"  # what every piece of a streamed answer says, in upstream.c


@dataclass(frozen=True, slots=True)
class Streamed:
    """One answer that came in pieces."""

    first_token_s: float
    tokens: int


class StreamReader(asyncio.Protocol):
    """One connection that asks for one stream after another, and hardly looks at it: the upstream needs the core."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._asked_at = 0.0
        self._first_token_s: float | None = None
        self._answer: asyncio.Future[Streamed] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._first_token_s is None and TOKEN in self._received:
            self._first_token_s = time.perf_counter() - self._asked_at
        if self._received.endswith(b"\r\n0\r\n\r\n"):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed a stream: {bytes(self._received[-200:])!r}")

    def _finish(self) -> None:
        if not self._received.startswith(b"HTTP/1.1 200") or b"data: [DONE]" not in self._received:
            self._fail(f"not a whole stream: {bytes(self._received[:300])!r}")
        elif self._answer and not self._answer.done():
            self._answer.set_result(Streamed(self._first_token_s or 0.0, self._received.count(TOKEN)))

    def _fail(self, why: str) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(BenchError(why))

    async def ask(self, request: bytes) -> Streamed:
        assert self.transport
        self._received.clear()
        self._first_token_s = None
        self._answer = asyncio.get_running_loop().create_future()
        self._asked_at = time.perf_counter()
        self.transport.write(request)
        try:
            async with asyncio.timeout(60):
                return await self._answer
        except TimeoutError as error:
            raise BenchError(f"a stream did not end in 60 s: {bytes(self._received[:300])!r}") from error


def stream_request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[StreamReader]:
    transport, reader = await asyncio.get_running_loop().create_connection(StreamReader, "127.0.0.1", port)
    try:
        yield reader
    finally:
        transport.close()


async def stream_load(port: int, request: bytes, *, connections: int, seconds: float) -> list[Streamed]:
    """Streams on so many connections; whatever was begun within `seconds` is read to its end."""
    end = time.perf_counter() + seconds

    async def work() -> list[Streamed]:
        async with connected(port) as reader:
            return [await reader.ask(request) for _ in iter(lambda: time.perf_counter() < end, False)]

    seen = await asyncio.gather(*(work() for _ in range(connections)))
    return [streamed for worker in seen for streamed in worker]


async def first_tokens(asked: Sequence[tuple[int, bytes]], rounds: int) -> list[list[float]]:
    """Seconds to the first token on each of the (port, request) pairs, asked by turns, on one connection each."""
    times: list[list[float]] = [[] for _ in asked]
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(connected(port)) for port, _ in asked]
        for _ in range(rounds):
            for reader, (_port, request), seen in zip(readers, asked, times, strict=True):
                seen.append((await reader.ask(request)).first_token_s)
    return times


@dataclass(frozen=True, slots=True)
class StreamSample:
    cpu_us: float
    """Per relayed chunk."""
    lost_ratio: float
    errors: int


def streamed(server: Server, connections: int, models: int, seconds: float) -> StreamSample:
    """Loads one server with streams."""
    before = server.program.usage()
    request = stream_request(server.path, comparison(models, stream=True))
    answers = asyncio.run(stream_load(server.port, request, connections=connections, seconds=seconds))
    usage = server.program.usage().since(before)
    # A model's first and last chunk say no token: its role and its end.
    errors = sum(answer.tokens != models * (CHUNKS - 2) for answer in answers)
    return StreamSample(usage.cpu_s * 1e6 / (len(answers) * models * CHUNKS), usage.lost_ratio, errors)


def stream(bench: Bench) -> list[Row]:
    """CPU per relayed chunk: saturated, as specified, and at a tenth of it, where falling behind saves nobody a read."""

    def row(connections: int, must: float | None = None, aim: float | None = None) -> Row:
        def measure(server: Server) -> Callable[[float], StreamSample]:
            return lambda seconds: streamed(server, connections, 4, seconds)

        taken = bench.by_turns({server.name: measure(server) for server in (bare, ours)})
        cpu_us = each(taken, lambda sample: sample.cpu_us)
        return Row.of(
            f"stream: CPU per relayed chunk, {connections} connections × 4 models",
            "µs",
            cpu_us,
            against="ratio",
            must=must,
            aim=aim,
            errors=total_errors(taken),
            lost_ratio=most_lost(taken),
            rss_mb=ours.program.rss_mb(),
        )

    with (
        upstream(bench, chunks=CHUNKS, gap_ms=GAP_MS) as to,
        floor(bench, to, "stream_floor.py") as bare,
        fanout(bench, to) as ours,
    ):
        return [row(32, must=2.0, aim=1.5), row(3)]


def first_token(bench: Bench) -> list[Row]:
    """What Fanout adds before the first token of a stream, one request at a time."""
    rounds = 60 if bench.quick else 300
    with (
        upstream(bench, latency_ms=20, chunks=10, gap_ms=GAP_MS) as to,
        floor(bench, to, "stream_floor.py") as bare,
        fanout(bench, to) as ours,
    ):
        direct = (to.port, stream_request(to.path, chat("m0", stream=True)))
        served = [(server.port, stream_request(server.path, comparison(4, stream=True))) for server in (bare, ours)]
        asyncio.run(first_tokens([direct, *served], rounds // 10))  # warm-up
        direct_s, bare_s, served_s = asyncio.run(first_tokens([direct, *served], rounds))
        rss_mb = ours.program.rss_mb()
    bare_ms = (median(bare_s) - median(direct_s)) * 1e3
    return [
        Row(
            f"stream: first token p50 over direct (bare relay: + {bare_ms:.2f}), 1 connection, 4 models",
            "ms",
            median(served_s) * 1e3,
            median(direct_s) * 1e3,
            against="added",
            must=3,
            aim=1.5,
            errors=(direct_s + served_s).count(0.0),
            rss_mb=rss_mb,
        )
    ]
