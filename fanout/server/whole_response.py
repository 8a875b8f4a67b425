"""Whole answers sent in one step: a head of constant lines and a few others, and the body behind it.

aiohttp makes the head of a mapping and sends it through five coroutines, 37 µs for each request (2026-11-28). It still does so
for all answers but the ordinary one: `tests/server/test_whole_response.py` has both alike, byte for byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from time import time

import aiohttp
from aiohttp import HttpVersion11, web

from fanout.providers.transport.own_client import TESTED_VERSIONS

WHOLE = web.ResponseKey("whole", bytes)
"""Head and body of an ordinary answer; absent from any other."""
SAFE_HEADERS = {"Server": "fanout", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer. A browser that guesses types might run an uploaded file as a page of this origin."""
SAFE_LINES = "".join(f"{name}: {value}\r\n" for name, value in SAFE_HEADERS.items())
IS_TESTED = aiohttp.__version__.startswith(TESTED_VERSIONS)
"""What is noted in a response of aiohttp's is not public."""
JSON, VARIES, PACKED = ("Content-Type", "application/json"), ("Vary", "Accept-Encoding"), ("Content-Encoding", "gzip")
ORDINARY_HEADERS: Mapping[tuple[tuple[str, str], ...], str] = {
    headers: "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    for headers in ((JSON,), (JSON, VARIES), (JSON, VARIES, PACKED))
}
"""Headers that an ordinary answer has before those of every answer are added, and how its head begins with them."""


def write_whole(request: web.Request, response: web.StreamResponse, added: Mapping[str, str]) -> None:
    """Write head and body of an answer, if it is ordinary, with `SAFE_HEADERS` and further ones, in the order of aiohttp."""
    body = _find_body(request, response)
    begin = ORDINARY_HEADERS.get(tuple(response.headers.items())) if body else None
    if body and begin:
        lines = "".join([f"{name}: {value}\r\n" for name, value in added.items()])
        sizes = f"Content-Length: {len(body)}\r\nDate: {_format_date(int(time()))}\r\n"
        response[WHOLE] = f"{begin}{sizes}{SAFE_LINES}{lines}\r\n".encode() + body


def _find_body(request: web.Request, response: web.StreamResponse) -> bytes | bytearray | None:
    """Return the body of an ordinary answer: a whole one, to a client that has sent all of its request and stays connected."""
    is_ordinary = (
        type(response) is web.Response
        and response.status == 200
        and response.reason == "OK"
        and not response.prepared
        and response.keep_alive is None
        and request.keep_alive
        and request.version == HttpVersion11
        and request.method != "HEAD"
        and request.content.is_eof()
        and IS_TESTED
    )
    if is_ordinary and isinstance(response, web.Response) and isinstance(response.body, bytes | bytearray):
        return response.body
    return None


def send(request: web.BaseRequest, response: web.StreamResponse, transport: asyncio.Transport | None) -> bool:
    """Send an answer if it has been written; return whether that was so."""
    whole = response.get(WHOLE)
    if whole is None or transport is None or transport.is_closing():
        return False
    request._finish()
    transport.write(whole)
    request.writer.output_size += len(whole)
    response._keep_alive = response._eof_sent = True
    return True


@lru_cache(maxsize=1)
def _format_date(now: int) -> str:
    return formatdate(now, usegmt=True)
