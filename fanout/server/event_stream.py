"""Server-sent events: the pieces of many calls in one stream, at the reader's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from aiohttp import web

from fanout.core.schema import Call, Delta, Failure, Outcome
from fanout.rendering.errors import render_all_failed
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware.replayable_stream import STREAM_RECORDING, ReplayableStream
from fanout.server.responses import error_response

PING_INTERVAL_S = 10.0
"""Silence after which the status 200 is sent, if it was held back, and then a comment that keeps the connection open."""
READER_GRACE_S = 30.0
"""Time after the deadline in which a reader may still fetch the rest."""
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
    outcomes: list[Outcome] = []
    bursts = request.app[DISPATCHER].stream_bursts(
        calls, deadline_s=deadline_s, return_when=return_when, silence_s=ping_interval_s
    )
    # The deadline ends the calls; this ends a handler that waits for a reader who has stopped reading.
    cutoff = asyncio.timeout(deadline_s + reader_grace_s)
    try:
        async with cutoff, aclosing(bursts):
            return await _relay(request, encoder, bursts, outcomes)
    except TimeoutError:
        if cutoff.expired() and request.transport:
            # An orderly close would wait for ever, because nobody reads the rest.
            request.transport.abort()
            # aiohttp cancels this handler as soon as it notices; an earlier exception would be logged as a bug.
            await asyncio.sleep(CANCELLATION_GRACE_S)
        raise


async def _relay(
    request: web.Request, encoder: EventEncoder, bursts: AsyncIterator[list[Delta | Outcome]], outcomes: list[Outcome]
) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    held: list[bytes] = []  # only failures, until the status is known
    async for burst in bursts:
        is_good = not burst  # an empty burst stands for silence
        for piece in burst:
            if isinstance(piece, Delta):
                held.append(encoder.encode_delta(piece))
                is_good = True
            else:
                outcomes.append(piece)
                held.append(encoder.encode_outcome(piece))
                is_good = is_good or not isinstance(piece.result, Failure)
        if response is None and is_good:
            response = await start(request)
        if response is not None and (frame := b"".join(held) or (b"" if burst else PING)):
            await response.write(frame)
            held.clear()
    # Collected in the order of their ends; answers and errors follow the order of the request.
    outcomes.sort(key=lambda outcome: outcome.call.index)
    if response is None:
        return error_response(request, render_all_failed(outcomes))
    # The end is part of the last write, so that a recorded stream is stored before its reader has all of it.
    await response.write_eof(encoder.encode_end(outcomes))
    return response


async def start(request: web.Request) -> web.StreamResponse:
    """Send the head of an event stream, which is recorded if the request brought an `Idempotency-Key`."""
    recording = request.get(STREAM_RECORDING)
    response = ReplayableStream(recording, HEADERS) if recording else web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    return response
