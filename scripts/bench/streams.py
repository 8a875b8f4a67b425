"""Streams: a client that reads them to their ends, and the figures measured with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median

from bench import Bench, extract, max_lost_ratio, sum_errors
from load import build_chat, build_comparison
from machine import BenchError
from servers import Server, run_fanout, run_floor, run_upstream
from table import Row

CHUNKS, GAP_MS = 100, 2
TOKEN = b" token"  # the text of every piece of a streamed answer, in upstream.c


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """One streamed answer."""

    first_token_s: float
    tokens: int


class StreamReader(asyncio.Protocol):
    """One connection that requests one stream after another and parses little of it: the upstream needs the core."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._sent_at = 0.0
        self._first_token_s: float | None = None
        self._answer: asyncio.Future[StreamedAnswer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._first_token_s is None and TOKEN in self._received:
            self._first_token_s = time.perf_counter() - self._sent_at
        if self._received.endswith(b"\r\n0\r\n\r\n"):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed a stream: {bytes(self._received[-200:])!r}")

    def _finish(self) -> None:
        if not self._received.startswith(b"HTTP/1.1 200") or b"data: [DONE]" not in self._received:
            self._fail(f"not a whole stream: {bytes(self._received[:300])!r}")
        elif self._answer and not self._answer.done():
            self._answer.set_result(StreamedAnswer(self._first_token_s or 0.0, self._received.count(TOKEN)))

    def _fail(self, reason: str) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(BenchError(reason))

    async def ask(self, request: bytes) -> StreamedAnswer:
        assert self.transport
        self._received.clear()
        self._first_token_s = None
        self._answer = asyncio.get_running_loop().create_future()
        self._sent_at = time.perf_counter()
        self.transport.write(request)
        try:
            async with asyncio.timeout(60):
                return await self._answer
        except TimeoutError as error:
            raise BenchError(f"a stream did not end in 60 s: {bytes(self._received[:300])!r}") from error


def build_stream_request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def open_reader(port: int) -> AsyncIterator[StreamReader]:
    transport, reader = await asyncio.get_running_loop().create_connection(StreamReader, "127.0.0.1", port)
    try:
        yield reader
    finally:
        transport.close()


async def read_streams(port: int, request: bytes, *, connections: int, seconds: float) -> list[StreamedAnswer]:
    """Request streams on several connections; those begun within `seconds` are read to their ends."""
    end = time.perf_counter() + seconds

    async def work() -> list[StreamedAnswer]:
        async with open_reader(port) as reader:
            return [await reader.ask(request) for _ in iter(lambda: time.perf_counter() < end, False)]

    results = await asyncio.gather(*(work() for _ in range(connections)))
    return [answer for worker in results for answer in worker]


async def time_first_tokens(requests: Sequence[tuple[int, bytes]], rounds: int) -> list[list[float]]:
    """Return the seconds to the first token of each (port, request) pair, requested in turns on one connection each."""
    times: list[list[float]] = [[] for _ in requests]
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(open_reader(port)) for port, _ in requests]
        for _ in range(rounds):
            for reader, (_port, request), seconds in zip(readers, requests, times, strict=True):
                seconds.append((await reader.ask(request)).first_token_s)
    return times


@dataclass(frozen=True, slots=True)
class StreamSample:
    cpu_us: float
    """Per relayed chunk."""
    lost_ratio: float
    errors: int


def load_with_streams(server: Server, connections: int, models: int, seconds: float) -> StreamSample:
    """Load one server with streams."""
    before = server.program.usage()
    request = build_stream_request(server.path, build_comparison(models, stream=True))
    answers = asyncio.run(read_streams(server.port, request, connections=connections, seconds=seconds))
    usage = server.program.usage().since(before)
    # The first and last chunk of a model hold no token, but its role and its end.
    errors = sum(answer.tokens != models * (CHUNKS - 2) for answer in answers)
    return StreamSample(usage.cpu_s * 1e6 / (len(answers) * models * CHUNKS), usage.lost_ratio, errors)


def measure_stream(bench: Bench) -> list[Row]:
    """Measure CPU per relayed chunk: saturated, and at a tenth of the load, where falling behind saves no reads."""

    def row(connections: int, must: float | None = None, aim: float | None = None) -> Row:
        def measure(server: Server) -> Callable[[float], StreamSample]:
            return lambda seconds: load_with_streams(server, connections, 4, seconds)

        samples = bench.measure_in_turns({server.name: measure(server) for server in (bare, ours)})
        cpu_us = extract(samples, lambda sample: sample.cpu_us)
        return Row.from_samples(
            f"stream: CPU per relayed chunk, {connections} connections × 4 models",
            "µs",
            cpu_us,
            against="ratio",
            must=must,
            aim=aim,
            errors=sum_errors(samples),
            lost_ratio=max_lost_ratio(samples),
            rss_mb=ours.program.rss_mb(),
        )

    with (
        run_upstream(bench, chunks=CHUNKS, gap_ms=GAP_MS) as to,
        run_floor(bench, to, "stream_floor.py") as bare,
        run_fanout(bench, to) as ours,
    ):
        return [row(32, must=1.1, aim=1.0), row(3)]


def measure_first_token(bench: Bench) -> list[Row]:
    """Measure the time Fanout adds before the first token of a stream, one request at a time."""
    rounds = 60 if bench.quick else 300
    with (
        run_upstream(bench, latency_ms=20, chunks=10, gap_ms=GAP_MS) as to,
        run_floor(bench, to, "stream_floor.py") as bare,
        run_fanout(bench, to) as ours,
    ):
        direct = (to.port, build_stream_request(to.path, build_chat("m0", stream=True)))
        served = [(server.port, build_stream_request(server.path, build_comparison(4, stream=True))) for server in (bare, ours)]
        asyncio.run(time_first_tokens([direct, *served], rounds // 10))  # warm-up
        direct_s, bare_s, served_s = asyncio.run(time_first_tokens([direct, *served], rounds))
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
