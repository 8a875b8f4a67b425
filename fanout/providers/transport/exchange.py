"""One request and its whole answer without a coroutine or a task: functions that the connection calls when bytes come.

Nearly every call goes out on a connection that is open, and gets a short answer of a stated length. What a coroutine in a
task costs such a call, 25 of 90 µs, is spared here (2026-11-28); whatever else it may need, `HttpProvider.complete` has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import hdrs
from aiohttp.http import HttpProcessingError, RawResponseMessage

from fanout.core.errors import ProviderError
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Failure
from fanout.limits.answer_memory import BEGINNING_BYTES
from fanout.providers import OnHeaders
from fanout.providers.mapping.redact import SecretGuard, has_beside_text
from fanout.providers.transport.connections import TakenConnection
from fanout.providers.transport.own_client import (
    MAX_BODY_BYTES,
    MAX_EARLY_HEADS,
    OwnClient,
    OwnResponse,
    PreparedRequest,
    is_early,
    name_bad_http,
    read_whole,
)
from fanout.providers.transport.request import BODIES, MAX_INLINE_ENCODE_CHARACTERS
from fanout.providers.transport.response import read_length

if TYPE_CHECKING:
    from fanout.providers.transport.http import HttpProvider

OnEnd = Callable[[Completion | Failure | Exception], None]
"""Gets the result of an exchange, or what no adapter may raise."""


class Exchange:
    """A request, and its connection as soon as it has one; made by `begin_exchange`, then sent or left. It ends once."""

    __slots__ = (
        "_body",
        "_call",
        "_client",
        "_connection",
        "_context",
        "_early",
        "_headers",
        "_on_end",
        "_on_headers",
        "_on_rest",
        "_on_sent",
        "_provider",
        "_request",
        "_response",
        "_size",
    )

    def __init__(
        self,
        provider: HttpProvider,
        client: OwnClient,
        call: Call,
        request: PreparedRequest,
        headers: Mapping[str, str],
        body: bytes,
        size: int,
    ) -> None:
        self._provider, self._client, self._call, self._request = provider, client, call, request
        self._headers, self._body, self._size = headers, body, size
        self._connection = client.connector.take_idle(request.key)
        self._response: OwnResponse | None = None
        self._early = 0

    def leave(self) -> None:
        """Send nothing, and give the connection back."""
        BODIES.give_back(self._size)
        if self._connection is not None:
            self._connection.release()

    def send(
        self,
        context: Context,
        on_sent: Callable[[], None],
        on_headers: OnHeaders,
        on_end: OnEnd,
        on_rest: Callable[[], None],
    ) -> None:
        """Send the request as soon as there is a connection.

        Args:
            context: in which all that comes of it is read and passed on.
            on_sent: called once some of it has left.
            on_headers: see `Provider.complete`.
            on_end: called once, unless the exchange is cancelled.
            on_rest: called instead if the rest takes a coroutine: see `read_rest`.
        """
        self._context, self._on_sent, self._on_headers = context, on_sent, on_headers
        self._on_end, self._on_rest = on_end, on_rest
        if self._connection is None:
            self._client.wait(self._request, self)
        else:
            self.take(self._connection)

    def take(self, connection: TakenConnection) -> None:
        """See `Taker.take`."""
        self._connection = connection
        protocol = connection.protocol
        assert protocol is not None
        # Before the request: an answer may come with the next event.
        protocol.receiver = self
        try:
            self._request.write(protocol, self._body)
        except Exception as error:  # passed on later, for the caller expects nothing before it has been sent
            asyncio.get_running_loop().call_soon(self.fail, error)
        self._on_sent()

    def _forget_caller(self) -> None:
        # Who refers to the exchange: such cycles would keep every answer until the collector comes.
        del self._on_end, self._on_rest, self._on_headers, self._on_sent

    def cancel(self) -> None:
        """End the exchange, and its connection; nothing is passed on."""
        self._forget_caller()
        BODIES.give_back(self._size)
        if self._connection is None:
            self._client.leave(self._request, self)
        else:
            self._connection.close()
        self._call.scope.release_answer(self._call.index)

    def receive(self, message: RawResponseMessage, content: aiohttp.StreamReader) -> None:
        """See `Receiver.receive`."""
        if message.code < 200 and is_early(message):
            self._early += 1
            if self._early > MAX_EARLY_HEADS:
                self.fail(HttpProcessingError(message="too many heads before the answer's own"))
        else:
            self._context.run(self._take_response, message, content)

    def fail(self, error: BaseException) -> None:
        """See `Receiver.fail` and `Taker.fail`."""
        if self._connection is not None and self._connection.protocol is None:  # it was cancelled before this was passed on
            return
        # That of the body tells that it is one which has broken off.
        error = (self._response and self._response.content.exception()) or error
        self._context.run(self._end_with, self._provider.name_error(self._name_bad_http(error)))

    def _name_bad_http(self, error: BaseException) -> Exception:
        if isinstance(error, HttpProcessingError):
            named = name_bad_http(self._request, error)
            named.__cause__ = error
            return named
        return error if isinstance(error, Exception) else aiohttp.ClientConnectionError(str(error))

    def _take_response(self, message: RawResponseMessage, content: aiohttp.StreamReader) -> None:
        connection, headers = self._connection, message.headers
        assert connection is not None
        try:
            self._on_headers(headers)
            is_short = self._hold(headers)
        except Exception as error:
            self._end_with(error)
            return
        if is_short and content.is_eof():  # nearly every body has come with its head
            connection.release()
            self._read_body(message, content)
            return
        self._response = OwnResponse(message, content, connection)
        if is_short:
            content.on_eof(partial(self._context.run, self._read_body, message, content))
            return
        # From here on a coroutine waits for what comes, as for any other response.
        if connection.protocol is not None:
            connection.protocol.receiver = None
        self._on_rest()

    def _hold(self, headers: Mapping[str, str]) -> bool:
        """Take room for the answer; return whether it is a short one that needs nothing else."""
        length = read_length(headers)
        if length is None or length > self._provider.settings.max_answer_bytes or hdrs.CONTENT_ENCODING in headers:
            return False
        return length <= BEGINNING_BYTES and self._call.scope.hold_whole(self._call.index, length)

    def _read_body(self, message: RawResponseMessage, content: aiohttp.StreamReader) -> None:
        # No error is kept in a variable: its traceback holds the frame, and the cycle would wait for the collector.
        try:
            answer = self._provider.decode(self._call, message.code, message.headers, read_whole(content))
            if has_beside_text(answer):  # else there is nothing to hide that the attempt would not: `Upstreams.hide_secrets`
                answer = self._make_guard().hide(answer)
        except Exception as error:
            self._end_with(error)
        else:
            self._end(answer)

    def _end_with(self, error: Exception) -> None:
        self._call.scope.release_answer(self._call.index)
        self._end(self._hide(error))

    def _end(self, result: Completion | Failure | Exception) -> None:
        BODIES.give_back(self._size)
        if self._connection is not None:  # it may have been given back with the end of the body
            self._connection.close()
        on_end = self._on_end
        self._forget_caller()
        on_end(result)

    def _hide(self, error: Exception) -> Failure | Exception:
        """Return the failure that an error is, without a secret; any other error as it is."""
        try:
            self._make_guard().check(error)
        except ProviderError as hidden:
            error = hidden
        return error.failure if isinstance(error, ProviderError) else error

    def _make_guard(self) -> SecretGuard:
        return SecretGuard(self._provider.find_secrets(self._headers))

    async def read_rest(self) -> Completion:
        """Return the answer whose head has come, and which is long, of unknown length or compressed.

        Raises:
            ProviderError: see `Provider.complete`.
        """
        response = self._response
        assert response is not None
        self._forget_caller()
        guard = self._make_guard()
        try:
            return await self._provider.read_answer(self._call, response, guard)
        except BaseException as error:
            guard.check(error)
            raise
        finally:
            BODIES.give_back(self._size)


def begin_exchange(provider: HttpProvider, call: Call) -> Exchange | None:
    """Return an exchange for a call, encoded; `None` for a call that takes a coroutine."""
    size, client = measure_query(call.query), provider.own_client
    if client is None or size.whole > MAX_INLINE_ENCODE_CHARACTERS or (size.images and not provider.inlines_nothing):
        return None
    try:
        request = provider.encode(call, stream=False)
    except Exception:  # found again, and reported, on the way of all calls
        return None
    url, headers, body = request
    if not isinstance(body, bytes) or len(body) > MAX_BODY_BYTES:
        return None
    prepared = client.prepare(url, headers, is_shared=provider.shares_headers(headers))
    if prepared is None or not BODIES.take_now(size.whole):  # large requests wait for each other
        return None
    return Exchange(provider, client, call, prepared, headers, body, size.whole)
