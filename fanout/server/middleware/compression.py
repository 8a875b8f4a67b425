"""Compression of whole answers, for callers that accept it.

Source: RFC 9110 §12.5.3. Streams are not compressed: their pieces are small, and a compressor would hold them back.
"""

from __future__ import annotations

import gzip
from functools import lru_cache, partial

from aiohttp import web

from fanout.core.threads import run_in_thread
from fanout.providers.transport.piecewise import PIECE_BYTES, PiecewisePayload

MIN_BYTES = 1024
"""Below this an answer fits one packet as it is."""
MAX_INLINE_BYTES = 16 * 1024
"""Above it an answer is compressed in a thread: this much takes half a millisecond."""


async def pack(request: web.Request, response: web.StreamResponse) -> None:
    """Compress a large answer, if the caller accepts gzip, and have it sent in pieces."""
    if isinstance(response, web.Response) and not response.prepared and isinstance(body := response.body, bytes | bytearray):
        if len(body) >= MIN_BYTES and "Content-Encoding" not in response.headers:
            vary = response.headers.get("Vary")
            response.headers["Vary"] = f"{vary}, Accept-Encoding" if vary else "Accept-Encoding"
            if accepts_gzip(request.headers.get("Accept-Encoding", "")):
                await _compress(response, body)
        if isinstance(response.body, bytes | bytearray) and len(response.body) > PIECE_BYTES:
            response.body = PiecewisePayload.cut(response.body)


async def _compress(response: web.Response, body: bytes | bytearray) -> None:
    # aiohttp's own compression would hold up the event loop.
    work = partial(gzip.compress, body, mtime=0)
    response.body = work() if len(body) <= MAX_INLINE_BYTES else await run_in_thread("answers", work)
    response.headers["Content-Encoding"] = "gzip"


@lru_cache(maxsize=64)  # bounded: callers choose what they send
def accepts_gzip(header: str) -> bool:
    """Return whether an `Accept-Encoding` allows gzip."""
    for coding in header.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
