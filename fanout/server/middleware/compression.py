"""Compression of whole answers, for callers that accept it.

Source: RFC 9110 §12.5.3. Streams are not compressed: their pieces are small, and a compressor would hold them back.
"""

from __future__ import annotations

from aiohttp import web

MIN_BYTES = 1024
"""Below this an answer fits one packet as it is."""


def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Let a large answer be compressed as it is sent, if the caller accepts gzip."""
    if not isinstance(response, web.Response) or response.prepared or not isinstance(response.body, bytes):
        return
    if len(response.body) < MIN_BYTES or "Content-Encoding" in response.headers:
        return
    response.headers["Vary"] = "Accept-Encoding"
    if _accepts_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)


def _accepts_gzip(header: str) -> bool:
    for coding in header.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
