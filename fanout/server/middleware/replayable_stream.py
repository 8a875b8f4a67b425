"""A stream that is recorded while it is sent, and goes on without its reader while others wait for the recording."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

Argument = TypeVar("Argument")
Result = TypeVar("Result")
MAX_BYTES = 4 * 2**20
"""Size of a recorded answer; a larger one is sent, but not kept."""


class StreamRecording:
    """Bytes that the stream of a request has sent so far.

    `on_end` is awaited before its last bytes leave; `has_waiters` tells if others than its own reader wait for the answer.
    """

    def __init__(self, on_end: Callable[[ReplayableStream], Awaitable[None]], has_waiters: Callable[[], bool]) -> None:
        self.data: bytearray | None = bytearray()  # `None` beyond `MAX_BYTES`: memory is bounded, the answer is not kept
        self.on_end, self.has_waiters = on_end, has_waiters
        self.is_abandoned = False
        """The stream's own reader has left: nothing is sent any more, only recorded."""

    def add(self, data: bytes) -> None:
        """Append what is about to be sent."""
        if self.data is not None:
            self.data += data
            if len(self.data) > MAX_BYTES:
                self.data = None


STREAM_RECORDING = web.RequestKey("stream_recording", StreamRecording)


class ReplayableStream(web.StreamResponse):
    """A recorded stream. It is kept before its last bytes leave, so that whoever has read it whole can have it again."""

    def __init__(self, recording: StreamRecording, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self.own_headers = dict(headers)  # without those that the server adds to every answer, also to the replayed one
        self._recording = recording
        self._has_ended = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        return await self._send(super().prepare, request)

    async def write(self, data: bytes) -> None:  # type: ignore[override]  # no view of memory is ever written here
        """Record and send a piece."""
        self._recording.add(data)  # first, for a reader who leaves during the write must not leave a gap
        await self._send(super().write, data)

    async def write_eof(self, data: bytes = b"") -> None:
        """Record the last piece, have the recording kept, then send the piece and the end. aiohttp may call it twice."""
        if not self._has_ended:
            self._has_ended = True
            self._recording.add(data)
            await self._recording.on_end(self)
        await self._send(super().write_eof, data)

    async def _send(self, step: Callable[[Argument], Awaitable[Result]], argument: Argument) -> Result | None:
        if not self._recording.is_abandoned:
            try:
                return await step(argument)
            except (ConnectionError, aiohttp.ClientConnectionError):
                if not self._recording.has_waiters():
                    raise  # nobody wants the rest: the handler ends, and with it every upstream call
                self._recording.is_abandoned = True
        return None
