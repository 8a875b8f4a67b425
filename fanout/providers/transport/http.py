"""Providers over HTTP: the sockets here, pure encoding and decoding in the subclasses."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import ClassVar

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.long_json import join_in_steps
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Delta, FittedParameters, Query, Target
from fanout.core.threads import run_in_thread
from fanout.limits.answer_memory import HeldAnswer, open_answer
from fanout.providers import OnHeaders
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.redact import SecretGuard
from fanout.providers.transport.configured import ConfiguredProvider, find_proxy
from fanout.providers.transport.connection_errors import CONNECTION_ERRORS, ConnectionWatch, NamedErrors, to_provider_error
from fanout.providers.transport.own_client import MAX_BODY_BYTES, open_client
from fanout.providers.transport.pieces import cut_delta
from fanout.providers.transport.piecewise import PiecewisePayload
from fanout.providers.transport.request import BODIES, MAX_INLINE_ENCODE_CHARACTERS, HttpRequest
from fanout.providers.transport.response import Response, read_length
from fanout.providers.transport.trace_context import TRACE_CONTEXT

MAX_INLINE_PARSE_BYTES = 256 * 1024
"""A longer body takes over a millisecond to parse, so it is parsed in a thread."""
MAX_BLANK_BYTES = 2**16
"""Of white space before an answer begins."""
LINGER_S = 0.2
"""Time that a stream may take after `[DONE]` to end its body in order, which saves the next call a handshake."""


class HttpProvider(ConfiguredProvider, ABC):
    """One upstream over one shared session. The caller limits the time of an attempt; only connecting is limited here."""

    reader_class: ClassVar[type[AnswerReader]]
    """The reader of the format's answers."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings)
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.row.connect_timeout_s)
        self.own_client = open_client(session, settings, self._timeout)
        own = type(self)
        is_plain = own.complete is HttpProvider.complete and own.write_request is HttpProvider.write_request
        self.may_exchange = is_plain and self.own_client is not None
        """A call is a request that is encoded without waiting for anything, and its answer: see `Exchange`."""
        self.inlines_nothing = own.inline is HttpProvider.inline
        """A request holds no image that must be fetched first."""
        self._shared_headers: CIMultiDict[str] | None = None
        """Headers of all requests but those with a caller's key, where a format has such."""
        self._named_errors = NamedErrors(self.name, settings.row.connect_timeout_s)

    @abstractmethod
    def fit(self, target: Target, query: Query) -> FittedParameters:
        """See `Provider.fit`."""

    @abstractmethod
    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Return the request for a call."""

    @abstractmethod
    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes | bytearray) -> Completion:
        """Parse a whole answer.

        Raises:
            ProviderError: it is an error or malformed; nothing else is raised, whatever the bytes.
        """

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        """Return a reader for one streamed answer of status 200."""
        return self.reader_class(self.origin(call).with_response(headers), call.index, self.settings.max_answer_bytes)

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        """See `Provider.complete`."""
        async with OpenRequest(self, call, stream=False) as (request, guard):
            return await self.read_answer(call, await self._post(request, on_headers), guard)

    async def read_answer(self, call: Call, response: Response, guard: SecretGuard) -> Completion:
        """Return the whole answer of a response; raises as `complete` does."""
        with open_answer(call) as held:
            return await self._decode(call, response, await self._read_body(response, held), guard)

    def shares_headers(self, headers: CIMultiDict[str]) -> bool:
        """Return whether headers are those of all requests, so that a head made of them can be kept."""
        return headers is self._shared_headers

    def name_error(self, error: Exception) -> ProviderError:
        """Return the failure that a connection error means."""
        return to_provider_error(self.name, error, self.settings.row.connect_timeout_s)

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        """See `Provider.stream`. Leaving early closes the upstream's connection."""
        async with OpenRequest(self, call, stream=True) as (request, guard):
            response = await self._post(request, on_headers)
            held = open_answer(call)  # also kept if it fails, for its text has been passed on; the next attempt gives it back
            try:
                data = await self._read_head(response)
                if not _is_success(response) or self.reader_class.is_stream(data) is False:
                    completion = await self._decode(call, response, await self._read_body(response, held, data), guard)
                    for index, choice in enumerate(completion.choices):
                        for delta in cut_delta(choice.to_delta(call.index, index)):
                            yield delta
                    yield completion
                    return
                reader, broken = self.open_reader(call, response.headers), None
                try:
                    with ConnectionWatch(response):
                        while data := data or await response.content.readany():
                            for delta in await _read(reader, guard, reader.feed, data):
                                yield delta
                            if reader.memory_bytes > held.size:
                                await held.grow(reader.memory_bytes, self.settings.max_answer_bytes)
                            if reader.is_ended:
                                break
                            data = b""
                except CONNECTION_ERRORS as error:
                    broken = error
                # Also of a broken stream: its last event may hold the finish reason.
                for delta in await _read(reader, guard, reader.flush):
                    yield delta
                if broken is None:
                    await _linger(response)
                close = partial(self._close, reader, response, broken, guard)
                held.end(reader.memory_bytes)
                yield await run_in_thread("calls", close) if reader.memory_bytes > MAX_INLINE_PARSE_BYTES else close()
            finally:
                held.end(held.size)
                response.close()  # not released: an answer that was not read to its end must end upstream too

    async def inline(self, call: Call) -> Call:
        """Return the call with all that its body must hold itself."""
        return call

    async def write_request(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode a call, a large one in a thread."""
        if measure_query(call.query).whole > MAX_INLINE_ENCODE_CHARACTERS:
            return await run_in_thread("calls", self.encode, call, stream=stream)
        return self.encode(call, stream=stream)

    async def _post(self, request: HttpRequest, on_headers: OnHeaders | None) -> Response:
        if (context := TRACE_CONTEXT.get()) is not None and self.settings.row.trace_context:
            headers = request.headers.copy()  # others share them
            headers.update(context)
            request = request._replace(headers=headers)
        with self._named_errors:
            response = await self._send(request)
        if on_headers is not None:  # before the body, so that a stream's headers count while it runs
            on_headers(response.headers)
        return response

    def _send(self, request: HttpRequest) -> Awaitable[Response]:
        body = request.body
        if self.own_client is not None and isinstance(body, bytes) and len(body) <= MAX_BODY_BYTES:
            prepared = self.own_client.prepare(request.url, request.headers, is_shared=self.shares_headers(request.headers))
            if prepared is not None:
                return self.own_client.post(prepared, body)
        # Redirects are not followed: the key would go to another host.
        return self._session.post(
            request.url,
            data=body if isinstance(body, bytes) else PiecewisePayload(body),
            headers=request.headers,
            allow_redirects=False,
            timeout=self._timeout,
            proxy=find_proxy(self.settings, request.url),
        )

    async def _read_head(self, response: Response) -> bytes:
        """Return the first bytes of an answer, as many as show whether it is a stream; none of a refusal."""
        head = b""
        # What breaks the connection here is raised by the next read again.
        with suppress(*CONNECTION_ERRORS), ConnectionWatch(response):
            while _is_success(response) and len(head) <= MAX_BLANK_BYTES and self.reader_class.is_stream(head) is None:
                if not (data := await response.content.readany()):
                    break
                head += data
        return head

    async def _read_body(self, response: Response, held: HeldAnswer, head: bytes = b"") -> bytes | bytearray:
        """Read a body of at most `max_answer_bytes`, of which `head` has been read.

        The connection is closed if it is not read to its end.
        """
        length, max_bytes = read_length(response.headers), self.settings.max_answer_bytes
        try:
            with self._named_errors:
                most, is_known = min(max_bytes, MAX_INLINE_PARSE_BYTES), hdrs.CONTENT_ENCODING not in response.headers
                # All at once where the size is known, and no more of it than that.
                if length is not None and length <= max_bytes and is_known and not held.grow_now(length):
                    await held.grow(length)
                if not head and length is not None and length <= most and is_known:
                    # Nearly every body has come with its head, and needs no turn of the event loop.
                    body = response.content.read_nowait() if response.content.is_eof() else await response.content.read()
                    held.end(length)
                    return body
                pieces = await self._read_within_limit(response, held, head, length or 0)
                size = sum(map(len, pieces))
                held.end(size)
                return await run_in_thread("calls", join_in_steps, pieces) if size > most else b"".join(pieces)
        except BaseException:
            # Also on cancellation: a connection with half an answer in it must not go back to the pool.
            response.close()
            raise

    async def _read_within_limit(self, response: Response, held: HeldAnswer, head: bytes, length: int) -> list[bytes]:
        """Read and count decompressed bytes: neither the stated length nor the size on the wire bounds memory."""
        pieces, size, max_bytes = [head], len(head), self.settings.max_answer_bytes
        with ConnectionWatch(response):
            while max(size, length) <= max_bytes:
                piece = await response.content.readany()
                if not piece:
                    return pieces
                pieces.append(piece)
                size += len(piece)
                if size > held.size:
                    await held.grow(size, max_bytes)
        raise self._origin.answer_error(f"answered with over {max_bytes:,} bytes", "answer_too_large")

    async def _decode(self, call: Call, response: Response, body: bytes | bytearray, guard: SecretGuard) -> Completion:
        def decode() -> Completion:
            return guard.hide(self.decode(call, response.status, response.headers, body))

        return await run_in_thread("calls", decode) if len(body) > MAX_INLINE_PARSE_BYTES else decode()

    def _close(self, reader: AnswerReader, response: Response, broken: Exception | None, guard: SecretGuard) -> Completion:
        """Return the answer of a stream; of a broken one, too, if its finish reason had arrived."""
        # A body that only the end of its connection ends may be cut anywhere.
        has_end = hdrs.CONTENT_LENGTH in response.headers or hdrs.TRANSFER_ENCODING in response.headers
        try:
            return guard.hide(reader.close(is_cut=broken is not None or not has_end))
        except ProviderError as error:
            raise error from broken


class OpenRequest:
    """A request in flight: while the context is open its body has its place in memory, and no failure leaves with a secret.

    A class and not a generator, since every call passes here.
    """

    __slots__ = ("_call", "_guard", "_provider", "_size", "_stream")

    def __init__(self, provider: HttpProvider, call: Call, *, stream: bool) -> None:
        self._provider, self._call, self._stream = provider, call, stream

    async def __aenter__(self) -> tuple[HttpRequest, SecretGuard]:
        call = await self._provider.inline(self._call)
        self._size = min(measure_query(call.query).whole, BODIES.limit)
        if not BODIES.take_now(self._size):
            await BODIES.take(self._size)
        try:
            request = await self._provider.write_request(call, stream=self._stream)
            self._guard = SecretGuard(self._provider.find_secrets(request.headers))
        except BaseException:
            BODIES.give_back(self._size)
            raise
        return request, self._guard

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        BODIES.give_back(self._size)
        if error is not None:
            self._guard.check(error)


async def _linger(response: Response) -> None:
    """Wait for the end of a body whose answer is complete, so that the connection can be used again."""
    if response.content.at_eof():
        return
    try:
        async with asyncio.timeout(LINGER_S):
            await response.content.readany()
    except CONNECTION_ERRORS:
        return  # the answer is whole all the same


async def _read(reader: AnswerReader, guard: SecretGuard, step: Callable[..., list[Delta]], *data: bytes) -> list[Delta]:
    """Take a step of reading, in a thread where the event that it may end is large."""

    def read() -> list[Delta]:
        return guard.hide_in_pieces(step(*data))

    if reader.pending_bytes <= MAX_INLINE_PARSE_BYTES:
        return read()
    return [piece for delta in await run_in_thread("calls", read) for piece in cut_delta(delta)]


def _is_success(response: Response) -> bool:
    return 200 <= response.status < 300
