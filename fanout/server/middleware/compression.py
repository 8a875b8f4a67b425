"""Compression of whole answers, for callers that accept it.

Source: RFC 9110 §12.5.3. Streams are not compressed: their pieces are small, and a compressor would hold them back.
"""

from __future__ import annotations

import gzip
from functools import partial

from aiohttp import web

from fanout.core.threads import run_in_thread

MIN_BYTES = 1024
"""Below this an answer fits one packet as it is."""
MAX_INLINE_BYTES = 16 * 1024
"""Above it an answer is compressed in a thread: this much takes half a millisecond."""


async def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Let a large answer be compressed as it is sent, if the caller accepts gzip."""
    if not isinstance(response, web.Response) or response.prepared or not isinstance(response.body, bytes):
        return
    if len(response.body) < MIN_BYTES or "Content-Encoding" in response.headers:
        return
    response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Accept-Encoding")))
    if not accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return
    # aiohttp's own compression would hold up the event loop.
    pack = partial(gzip.compress, response.body, mtime=0)
    response.body = pack() if len(response.body) <= MAX_INLINE_BYTES else await run_in_thread("answers", pack)
    response.headers["Content-Encoding"] = "gzip"


def accepts_gzip(header: str) -> bool:
    """Return whether an `Accept-Encoding` allows gzip."""
    for coding in header.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
