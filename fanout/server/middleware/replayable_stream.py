"""A stream that is kept while it is sent, and goes on without its reader while others wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

Given = TypeVar("Given")
Done = TypeVar("Done")
MAX_BYTES = 4 * 2**20
"""Of an answer that is kept; a longer one is not."""


class StreamRecording:
    """What a request's stream has said so far."""

    def __init__(self, ended: Callable[[ReplayableStream], Awaitable[None]], is_awaited: Callable[[], bool]) -> None:
        self.said: bytearray | None = bytearray()
        """`None`: it was too much."""
        self.ended, self.is_awaited = ended, is_awaited
        self.alone = False
        """The reader has left."""

    def add(self, data: bytes) -> None:
        if self.said is not None:
            self.said += data
            if len(self.said) > MAX_BYTES:
                self.said = None


STREAM_RECORDING = web.RequestKey("tape", StreamRecording)


class ReplayableStream(web.StreamResponse):
    """The stream itself. Before its last bytes leave, what was said is kept: who has read it to its end can have it again."""

    def __init__(self, tape: StreamRecording, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self.given = dict(headers)
        self._tape = tape
        self._over = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return await self._unless_alone(super().prepare, request)

    async def write(self, data: bytes) -> None:  # type: ignore[override]  # no view of memory is ever written here
        self._tape.add(data)
        await self._unless_alone(super().write, data)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._over:
            self._over = True
            self._tape.add(data)
            await self._tape.ended(self)
        await self._unless_alone(super().write_eof, data)

    async def _unless_alone(self, step: Callable[[Given], Awaitable[Done]], given: Given) -> Done | None:
        """What is done for the reader, while there is one."""
        if not self._tape.alone:
            try:
                return await step(given)
            except (ConnectionError, aiohttp.ClientConnectionError):
                if not self._tape.is_awaited():
                    raise
                self._tape.alone = True
        return None
