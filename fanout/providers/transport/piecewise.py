"""Sending a large body piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

PIECE_BYTES = 64 * 1024


class PiecewisePayload(Payload):
    """A body in pieces, between which other tasks get their turn.

    aiohttp would hand the whole to the socket at once, or copy all of it first.
    """

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        super().__init__(pieces)
        self._size = sum(map(len, pieces))

    @classmethod
    def cut(cls, data: bytes | bytearray) -> PiecewisePayload:
        """Return a payload of the pieces of `data`."""
        view = memoryview(data)
        return cls([view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES)])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See `Payload.decode`."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See `Payload.write`."""
        for piece in self._value:
            await writer.write(piece)
            await asyncio.sleep(0)
