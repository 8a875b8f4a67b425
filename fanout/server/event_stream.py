"""Server-sent events: the pieces of many calls in one stream, at the reader's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from aiohttp import web

from fanout.core.answer_size import measure_answer
from fanout.core.schema import Call, Completion, Delta, Failure, Outcome
from fanout.core.threads import run_in_thread
from fanout.rendering.errors import render_all_failed
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware.replayable_stream import STREAM_RECORDING, ReplayableStream
from fanout.server.responses import MAX_INLINE_BYTES, error_response

PING_INTERVAL_S = 10.0
"""Silence after which the status 200 is sent, if it was held back, and then a comment that keeps the connection open."""
READER_GRACE_S = 30.0
"""Time after the deadline in which a reader may still fetch the rest."""
MAX_FRAME_BYTES = 64 * 1024
"""Encoded and sent at once; a burst of more lets other tasks have their turn."""
CANCELLATION_GRACE_S = 1.0
PING = b": ping\n\n"
# nginx would hold the events back until its buffer is full, but for the third header.
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventEncoder(Protocol):
    """A dialect's way to write the events of a stream."""

    def encode_delta(self, piece: Delta) -> bytes: ...
    def encode_outcome(self, outcome: Outcome) -> bytes: ...
    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes: ...


async def respond(
    request: web.Request,
    encoder: EventEncoder,
    calls: Sequence[Call],
    deadline_s: float,
    return_when: int | None,
    *,
    ping_interval_s: float = PING_INTERVAL_S,
    reader_grace_s: float = READER_GRACE_S,
) -> web.StreamResponse:
    """Stream the pieces of all calls as they arrive.

    The status 200 waits for the first piece, the first answer or `ping_interval_s`, whichever comes first: if every call has
    failed by then, the answer is an error with a status of its own. A reader who stops reading is cut off `reader_grace_s`
    after the deadline.
    """
    bursts = request.app[DISPATCHER].stream_bursts(
        calls, deadline_s=deadline_s, return_when=return_when, silence_s=ping_interval_s
    )
    sink = ResponseSink(request)
    # The deadline ends the calls; this ends a handler that waits for a reader who has stopped reading.
    async with cut_off(request, deadline_s + reader_grace_s), aclosing(bursts):
        refused = await relay(sink, encoder, bursts)
    return error_response(request, render_all_failed(refused)) if refused is not None else sink.response


@asynccontextmanager
async def cut_off(request: web.Request, timeout_s: float) -> AsyncGenerator[None]:
    """Break the connection of a reader who is not served in time; raise `TimeoutError`."""
    cutoff = asyncio.timeout(timeout_s)
    try:
        async with cutoff:
            yield
    except TimeoutError:
        if cutoff.expired() and request.transport:
            # An orderly close would wait for ever, because nobody reads the rest.
            request.transport.abort()
            # aiohttp cancels this handler as soon as it notices; an earlier exception would be logged as a bug.
            await asyncio.sleep(CANCELLATION_GRACE_S)
        raise


class Sink(Protocol):
    """The destination of a stream."""

    async def start(self) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def write_eof(self, data: bytes = b"") -> None: ...


class ResponseSink:
    """The response to a request, whose head is sent at the start."""

    response: web.StreamResponse

    def __init__(self, request: web.Request) -> None:
        self._request = request

    async def start(self) -> None:
        self.response = await start(self._request)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)

    async def write_eof(self, data: bytes = b"") -> None:
        await self.response.write_eof(data)


async def relay(sink: Sink, encoder: EventEncoder, bursts: AsyncIterator[list[Delta | Outcome]]) -> Sequence[Outcome] | None:
    """Send the pieces of all calls to a sink. If all have failed before anything was sent, return their outcomes instead."""
    outcomes: list[Outcome] = []
    has_started = False
    held: list[bytes] = []  # only failures, until the status is known
    async for burst in bursts:
        is_good, size = not burst, 0  # an empty burst stands for silence
        for piece in burst:
            if isinstance(piece, Delta):
                held.append(encoder.encode_delta(piece))
                is_good = True
            else:
                outcomes.append(piece)
                held.append(await _encode_outcome(encoder, piece))
                is_good = is_good or not isinstance(piece.result, Failure)
            size += len(held[-1])
            if size > MAX_FRAME_BYTES and is_good:
                has_started, size = await _send(sink, held, has_started=has_started), 0
                await asyncio.sleep(0)
        if has_started or is_good:
            has_started = await _send(sink, held if held or burst else [PING], has_started=has_started)
    # Collected in the order of their ends; answers and errors follow the order of the request.
    outcomes.sort(key=lambda outcome: outcome.call.index)
    if not has_started:
        return outcomes
    # The end is part of the last write, so that a recorded stream is stored before its reader has all of it.
    await sink.write_eof(encoder.encode_end(outcomes))
    return None


async def _send(sink: Sink, held: list[bytes], *, has_started: bool) -> bool:
    """Send what is held, the head first; return True, for it has started now."""
    if not has_started:
        await sink.start()
    if frame := b"".join(held):
        await sink.write(frame)
    held.clear()
    return True


async def _encode_outcome(encoder: EventEncoder, outcome: Outcome) -> bytes:
    """Return the last event of a call, which may hold all of an answer."""
    if isinstance(outcome.result, Completion) and measure_answer(outcome.result) > MAX_INLINE_BYTES:
        return await run_in_thread("answers", encoder.encode_outcome, outcome)
    return encoder.encode_outcome(outcome)


async def start(request: web.Request) -> web.StreamResponse:
    """Send the head of an event stream, which is recorded if the request brought an `Idempotency-Key`."""
    recording = request.get(STREAM_RECORDING)
    response = ReplayableStream(recording, HEADERS) if recording else web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    return response
