"""Reading a request's body: unpacked step by step, within a bound on its size and a pace that its sender must keep."""

from __future__ import annotations

import asyncio
import time
import zlib
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import ParamSpec, TypeVar

from aiohttp import web
from pydantic import BaseModel

from fanout.core.errors import Fault, RequestError
from fanout.core.json_values import MAX_VALUES, STEP_BYTES, ValueCounter
from fanout.core.long_json import join_in_steps
from fanout.core.threads import run_in_thread
from fanout.requests.bodies import refuse_infinite, validate_body
from fanout.requests.repeated_bodies import RepeatedBodies
from fanout.requests.thiggle import CompletionBody
from fanout.server.connections import WAIT_LIMITS
from fanout.server.lifecycle import DISPATCHER

Body = TypeVar("Body", bound=BaseModel)
Made = TypeVar("Made")
Parameters = ParamSpec("Parameters")
Received = TypeVar("Received")
RAW_BODY = web.RequestKey[bytes | bytearray]("raw_body", bytes)
"""The body, unpacked, once it has been read."""
VALUES = web.RequestKey("values", ValueCounter)
"""The values of that body."""
REPEATED_BODIES = web.AppKey("repeated_bodies", RepeatedBodies)
PLAIN_ENCODINGS = ("", "identity")
ENCODINGS = ("gzip", "x-gzip", "deflate")
UNPACK_STEP_BYTES = 64 * 1024
"""Unpacked at once, in some 0.2 ms."""
MAX_TURN_S = 0.0005
"""Time of unpacking and counting after which other requests get a turn."""
MAX_INLINE_BYTES, MAX_INLINE_VALUES = 64 * 1024, 200
"""Above either a body is worked on in a thread: so much takes half a millisecond, even if everything in it is wrong."""
MIN_BYTES_PER_S = 4096
"""Slowest pace of a body, once its `WaitLimits.body_s` are used up."""


async def read_body(request: web.Request, model: type[Body], fields: Mapping[str, str] | None = None) -> Body:
    """Read and validate the body of a request. Validators of `model` find the server's limits and catalogue in their context.

    Args:
        request: holds the body.
        model: the model that validates the body.
        fields: fields that the path holds; they replace those of the body.

    Raises:
        RequestError: names every wrong field.
        HTTPBadRequest: the body cannot be unpacked.
        HTTPRequestTimeout: the body comes too slowly.
        HTTPUnsupportedMediaType: the body is not declared as JSON, or encoded in an unknown way.
        HTTPRequestEntityTooLarge: the body is larger than the server accepts.
    """
    raw = await _read_json_body(request)
    return await work_on_body(request, _validate, request, raw, model, fields)


async def read_completion_body(request: web.Request) -> tuple[CompletionBody, str]:
    """Read and validate the body of `POST /v1/completion`; see `read_body`, and for what it returns `RepeatedBodies`."""
    raw = await _read_json_body(request)
    return await work_on_body(request, _find_or_validate, request, raw)


async def _read_json_body(request: web.Request) -> bytes | bytearray:
    # As nearly all write it; aiohttp's parser of the header takes ten times as long.
    if request.headers.get("Content-Type") != "application/json" and request.content_type != "application/json":
        # This also stops foreign web pages, whose forms can send JSON but not with this type.
        raise web.HTTPUnsupportedMediaType(text=f"send `Content-Type: application/json`, not {request.content_type!a:.100}")
    return await read_raw_body(request)


def _validate(request: web.Request, raw: bytes | bytearray, model: type[Body], fields: Mapping[str, str] | None) -> Body:
    return validate_body(raw, model, _make_context(request, raw), fields)


def _find_or_validate(request: web.Request, raw: bytes | bytearray) -> tuple[CompletionBody, str]:
    return request.app[REPEATED_BODIES].validate(raw, _make_context(request, raw))


def _make_context(request: web.Request, raw: bytes | bytearray) -> Mapping[str, object]:
    """Return the context of validators; raise `RequestError` for numbers that JSON cannot hold."""
    if request[VALUES].may_be_infinite:
        refuse_infinite(raw)
    dispatcher = request.app[DISPATCHER]
    return {"max_timeout_s": dispatcher.settings.environment.max_timeout_s, "catalogue": dispatcher.catalogue}


async def work_on_body(
    request: web.Request, work: Callable[Parameters, Made], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Made:
    """Return what a function makes of the body of a request, in a thread if the body is large."""
    if len(request[RAW_BODY]) > MAX_INLINE_BYTES or request[VALUES].values > MAX_INLINE_VALUES:
        return await run_in_thread("bodies", work, *args, **kwargs)
    return work(*args, **kwargs)


async def read_raw_body(request: web.Request) -> bytes | bytearray:
    """Read the body, once, and keep it on the request for the history; for what it raises see `read_body`."""
    if RAW_BODY not in request:
        try:
            await _receive(request)
        except (web.RequestPayloadError, zlib.error):
            # Uncaught, it would be logged as a bug of ours and answered with 500, though the caller sent the bad bytes.
            raise web.HTTPBadRequest(text="the body cannot be unpacked: it is not what its headers say") from None
    return request[RAW_BODY]


def check_encoding(request: web.Request, *, allowed: tuple[str, ...] = ENCODINGS) -> str:
    """Return the encoding of a body, empty for none; raise `HTTPUnsupportedMediaType` unless it is allowed."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in PLAIN_ENCODINGS:
        return ""
    if encoding not in allowed:
        named = ", ".join(f"`{name}`" for name in (*allowed, "identity"))
        sentence = f"`Content-Encoding: {encoding!a:.40}` is not accepted; accepted: {named}"
        raise web.HTTPUnsupportedMediaType(text=sentence, headers={"Accept-Encoding": ", ".join(allowed) or "identity"})
    return encoding


async def _receive(request: web.Request) -> None:
    max_bytes = request.app[DISPATCHER].settings.environment.max_body_bytes
    encoding = check_encoding(request)
    if not encoding and request.content.is_eof() and (request.content_length or max_bytes) < min(STEP_BYTES, max_bytes):
        # It has come with its head, as most do: nothing is waited for (a quarter of the time of what follows).
        request[RAW_BODY] = raw = request.content.read_nowait().removeprefix(BOM_UTF8)
        request[VALUES] = counter = ValueCounter()
        counter.feed(raw)
        return
    unpacker = Unpacker(encoding) if encoding else None
    pace, counter, began = BodyPace(request), ValueCounter(), time.perf_counter()
    pieces, size = list[bytes](), 0
    if (request.content_length or 0) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, request.content_length or 0)
    while chunk := await pace.wait(request.content.readany()):
        for piece in _cut(unpacker.unpack(chunk) if unpacker else (chunk,)):
            pieces.append(piece)
            size += len(piece)
            counter.feed(piece)
            if counter.has_too_many:
                sentence = f"holds more than {MAX_VALUES:,} values (texts, numbers, objects, lists); rows may come as a file"
                raise RequestError([Fault("", f"the body {sentence}", "too_many_values")])
            # Checked at each step: a few bytes can unpack to any number of them.
            if size > max_bytes:
                raise web.HTTPRequestEntityTooLarge(max_bytes, size)
            if time.perf_counter() - began > MAX_TURN_S:
                await asyncio.sleep(0)
                began = time.perf_counter()
        began = time.perf_counter()
    if unpacker:
        unpacker.finish()
    request[RAW_BODY] = await run_in_thread("bodies", join_in_steps, pieces) if size > MAX_INLINE_BYTES else b"".join(pieces)
    # A byte order mark, as editors on Windows write it, may be ignored: RFC 8259, section 8.1.
    if request[RAW_BODY].startswith(BOM_UTF8):
        request[RAW_BODY] = request[RAW_BODY].removeprefix(BOM_UTF8)
    request[VALUES] = counter


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), STEP_BYTES):
            yield piece[start : start + STEP_BYTES]


class BodyPace:
    """Time that the sender of a body has left."""

    def __init__(self, request: web.Request) -> None:
        self._limit_s = self._left_s = request.app[WAIT_LIMITS].body_s

    async def wait(self, piece: Awaitable[Received]) -> Received:
        """Wait for a piece of the body; raise `HTTPRequestTimeout` if its sender has used up the time."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left_s):
                received = await piece
        except TimeoutError:
            allowed = f"{self._limit_s:g} s, and a second more for every {MIN_BYTES_PER_S} bytes"
            raise web.HTTPRequestTimeout(text=f"the body comes too slowly; allowed: {allowed}") from None
        # Our own work between two pieces takes nothing of the sender's time.
        self._left_s -= time.monotonic() - began
        if isinstance(received, bytes | bytearray):
            self._left_s += len(received) / MIN_BYTES_PER_S
        return received


class Unpacker:
    """A packed body, unpacked in steps of at most `UNPACK_STEP_BYTES`. Its methods raise `zlib.error` for a malformed one."""

    def __init__(self, encoding: str) -> None:
        self._is_deflate = encoding == "deflate"
        self._zlib = None if self._is_deflate else zlib.decompressobj(zlib.MAX_WBITS | 16)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield what some packed bytes unpack to."""
        if self._zlib is None:
            # Some clients send `deflate` without the frame that RFC 9110 §8.4.1.2 asks for.
            has_frame = data[0] & 0x0F == zlib.DEFLATED
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if has_frame else -zlib.MAX_WBITS)
        while data:
            yield self._zlib.decompress(data, UNPACK_STEP_BYTES)
            data = self._zlib.unconsumed_tail
            # A second packed body behind the first: with millions of empty ones nothing would grow but the time.
            if self._zlib.unused_data:
                raise zlib.error("bytes follow the end")

    def finish(self) -> None:
        """Check that the packed body was whole."""
        if self._zlib is not None and not self._zlib.eof:
            raise zlib.error("it is cut off")
