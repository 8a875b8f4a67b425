"""Answers that are files to save."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from aiohttp import web


async def respond_download(
    request: web.Request, pieces: AsyncIterator[bytes], *, filename: str, content_type: str, size: int | None = None
) -> web.StreamResponse:
    """Send a file piece by piece, so that memory does not grow with it; its `size` in bytes may be unknown before its end."""
    name = re.sub(r"[^\w.() -]", "_", filename, flags=re.ASCII)  # a quote or line break would end the header
    response = web.StreamResponse(
        headers={
            "Content-Type": content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        }
    )
    if size is not None:
        response.content_length = size
    await response.prepare(request)
    async for piece in pieces:
        if piece:  # an empty one would be the end of a chunked body
            await response.write(piece)
    await response.write_eof()
    return response
