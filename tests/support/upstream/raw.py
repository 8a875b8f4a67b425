"""Servers that answer every request with given bytes, so that a test decides what stands on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class RawServer:
    """A running server and what it received."""

    url: str
    """With the path `/v1`."""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Of the requests."""

    @property
    def origin(self) -> str:
        """The address without a path."""
        return self.url.removesuffix("/v1")


@asynccontextmanager
async def serve_raw(*parts: bytes | float) -> AsyncIterator[RawServer]:
    """Serve these bytes, with pauses, to every request; then nothing more, and the connection stays open."""
    raw = RawServer("")
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                raw.heads.append(head)
                raw.bodies.append(await reader.readexactly(length))
                for part in parts:
                    if isinstance(part, bytes):
                        writer.write(part)
                        await writer.drain()
                    else:
                        await asyncio.sleep(part)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield raw
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which they are closed


@asynccontextmanager
async def serve_bytes(*parts: bytes | float) -> AsyncIterator[str]:
    """Serve like `serve_raw`; yield the address alone."""
    async with serve_raw(*parts) as raw:
        yield raw.url


def encode_head(*lines: str, status: int = 200) -> bytes:
    """Return the head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status} OK", *lines, "", ""]).encode()


def encode_chunk(data: bytes) -> bytes:
    """Return a piece of a chunked body; empty, its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_response(body: bytes, content_type: str | None, *, chunked: bool = False) -> bytes:
    """Return a whole response of status 200."""
    types = [] if content_type is None else [f"Content-Type: {content_type}"]
    if chunked:
        return encode_head(*types, "Transfer-Encoding: chunked") + encode_chunk(body) + encode_chunk(b"")
    return encode_head(*types, f"Content-Length: {len(body)}") + body
