"""Server-sent events: the pieces of many calls in one stream, at the reader's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from aiohttp import web

from fanout.core.schema import Call, Delta, Failure, Outcome
from fanout.rendering.errors import all_failed
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware.replayable_stream import STREAM_RECORDING, ReplayableStream

PING_INTERVAL_S = 10.0
"""After so long without a piece: the 200, where it was held back, and a comment that keeps the connection open."""
READER_GRACE_S = 30.0
"""How long past the deadline a reader may take for what is left."""
CANCELLATION_GRACE_S = 1.0
PING = b": ping\n\n"


class Frames(Protocol):
    """A dialect's chunks."""

    def delta(self, piece: Delta) -> bytes: ...
    def outcome(self, outcome: Outcome) -> bytes: ...
    def end(self, outcomes: Sequence[Outcome]) -> bytes: ...


async def respond(
    request: web.Request,
    frames: Frames,
    calls: Sequence[Call],
    deadline_s: float,
    return_when: int | None,
    *,
    silence_s: float = PING_INTERVAL_S,
    linger_s: float = READER_GRACE_S,
) -> web.StreamResponse:
    """Streams the calls' pieces as they come.

    The 200 waits for the first piece, the first answer or `silence_s`: if every call failed before that, the status says so.
    A reader who stops reading has `linger_s` past the deadline.
    """
    outcomes: list[Outcome] = []
    bursts = request.app[DISPATCHER].bursts(calls, deadline_s=deadline_s, return_when=return_when, silence_s=silence_s)
    late = asyncio.timeout(deadline_s + linger_s)
    try:
        async with late, aclosing(bursts):
            return await _relay(request, frames, bursts, outcomes)
    except TimeoutError:
        if late.expired() and request.transport:
            request.transport.abort()  # closed in order, it would wait for ever to send what nobody reads
            await asyncio.sleep(CANCELLATION_GRACE_S)  # as every handler whose client has left: what it raises would be logged
        raise


async def _relay(
    request: web.Request, frames: Frames, bursts: AsyncIterator[list[Delta | Outcome]], outcomes: list[Outcome]
) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    held: list[bytes] = []
    async for burst in bursts:
        good = not burst
        for piece in burst:
            if isinstance(piece, Delta):
                held.append(frames.delta(piece))
                good = True
            else:
                outcomes.append(piece)
                held.append(frames.outcome(piece))
                good = good or not isinstance(piece.result, Failure)
        if response is None and good:
            response = await _start(request)
        if response is not None and (frame := b"".join(held) or (b"" if burst else PING)):
            await response.write(frame)
            held.clear()
    outcomes.sort(key=lambda outcome: outcome.call.index)
    if response is None:
        return all_failed(outcomes)
    await response.write_eof(frames.end(outcomes))
    return response


async def _start(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    tape = request.get(STREAM_RECORDING)
    response = ReplayableStream(tape, headers) if tape else web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response
