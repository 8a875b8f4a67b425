"""Incoming connections: how long each may keep us waiting, how many there are, and answers to what is not HTTP."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from fanout.core.ids import create_uuid
from fanout.core.json_text import encode_json
from fanout.core.sockets import untie
from fanout.core.turns import READ_BYTES, TurnTaking
from fanout.limits.answer_memory import AnswerScope
from fanout.observability.log_once import LogOnce
from fanout.observability.logs import log
from fanout.rendering.errors import render_error
from fanout.server.malformed import UnspokenVersionError, explain_malformed
from fanout.server.paths import tidy_path
from fanout.server.whole_response import SAFE_HEADERS, send

RESERVED_FILES = 64
"""Descriptors kept free of connections: the database, the log, DNS, files."""
PROBES = (b"GET /livez", b"HEAD /livez", b"GET /readyz", b"HEAD /readyz", b"GET /health", b"HEAD /health")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Says nothing, and may be sent at any time before an answer: https://www.rfc-editor.org/rfc/rfc9110#section-15.2"""
MAX_DROPPED_BYTES = 64 * 2**20
"""Most that is taken of a refused body and thrown away: twice the largest that is accepted."""
HALF_CLOSED_S = (0.01, 0.1, 5.0)
"""Delays after which a client that sends no more is probed: the first, the second, and all others."""


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """Longest waits for the client of a connection, in seconds."""

    idle_s: float = 75.0
    """Without a request. Longer than the 60 s of load balancers, which then close first."""
    head_s: float = 20.0
    """For the rest of a request's head, from its first byte."""
    body_s: float = 30.0
    """For a body, and beyond it a second for every `request_body.MIN_BYTES_PER_S` that have come."""
    reader_s: float = 300.0
    """For a client that has stopped reading its answer."""
    close_s: float = 10.0
    """For the last bytes of a closed connection to leave, and for those that its client had begun to send."""


WAIT_LIMITS = web.AppKey("wait_limits", WaitLimits)
ANSWER_SCOPES = web.RequestKey("answer_scopes", frozenset[AnswerScope])
"""Scopes of the calls of a request, whose answers hold memory until the response has left."""


def count_connections(configured: int | None) -> int:
    """Return how many connections may be open: by default what upstream calls leave of the limit on open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # Upstream calls take up to half of the limit.
    return configured or max(limit // 2 - min(RESERVED_FILES, limit // 4), 1)


class Connection(TurnTaking, RequestHandler):
    """A connection that is closed if its client neither sends nor reads."""

    __slots__ = ("_droppable", "_half_closed_timer", "_head_timer", "_is_malformed", "_limits", "_reader_timer")

    def __init__(self, server: BoundedServer, limits: WaitLimits) -> None:
        # The two last: a body that nobody wants is neither waited for nor unpacked.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast(logging.Logger, None),  # ours is better
            keepalive_timeout=limits.idle_s,
            lingering_time=0.0,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )
        self._droppable: int | None = None
        """Bytes that are still taken and thrown away after the last answer; `None` before it."""
        self._is_malformed = False
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._half_closed_timer: asyncio.TimerHandle | None = None

    @property
    def _is_waiting(self) -> bool:
        """True while aiohttp waits for a request, all others being answered."""
        return self._waiter is not None and not self._waiter.done()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; begin to wait for the rest of a head that is incomplete."""
        if self._droppable is not None:
            self._droppable -= len(data)
            if self._droppable < 0:
                self._abort()
            return
        if data.startswith(PROBES) and data.endswith(b"\r\n\r\n") and b"\r\nhost:" not in data.lower():
            # HTTP/1.1 requires `Host`, but some monitors send none; there is nothing to gain from these answers.
            data = data.replace(b"\r\n", b"\r\nHost: localhost\r\n", 1)
        super().data_received(data)
        for place, (message, _) in enumerate(self._messages):
            if isinstance(message, RawRequestMessage) and message.version not in (HttpVersion11, HttpVersion10):
                self._messages[place] = (_ErrInfo(400, UnspokenVersionError(), ""), EMPTY_PAYLOAD)
        # aiohttp waits for a request, and what has come is none yet.
        is_incomplete = bool(data) and self._is_waiting
        if is_incomplete and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_s, self._abort)
        elif not is_incomplete and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio takes both
        """Keep the connection of a client that sends no more while a request of it is being answered."""
        if self._droppable is not None:
            return False
        request = self._current_request
        # Amid an answer it is nearly always a client that has left, and nothing can be written there to find that out.
        if self._is_waiting or not self._request_count or (request is not None and request.writer.output_size > 0):
            return False
        self._half_closed_timer = self._loop.call_later(HALF_CLOSED_S[0], self._serve_half_closed_client, 1)
        return True

    def _serve_half_closed_client(self, number: int) -> None:
        """Close after the last answer, or at once if the client has left, which only writing to it can tell."""
        request, transport = self._current_request, self.transport
        if transport is None:
            return
        # HTTP/1.0 has no answer that could be written as a probe; most of its clients are proxies, whose callers have left.
        is_hopeless = request is not None and (request.version < HttpVersion11 or not request.content.is_eof())
        if self._is_waiting or is_hopeless:
            transport.close()
            return
        if not self._messages:
            self._close = True
        if request is None or request.writer.output_size == 0:
            # To a client that has left, the second one fails: then the request is cancelled, with all its calls.
            transport.write(CONTINUE)
        delay_s = HALF_CLOSED_S[min(number, len(HALF_CLOSED_S) - 1)]
        self._half_closed_timer = self._loop.call_later(delay_s, self._serve_half_closed_client, number + 1)

    def pause_writing(self) -> None:
        """Begin to wait for a client that reads slower than it is sent to."""
        super().pause_writing()
        self._reader_timer = self._loop.call_later(self._limits.reader_s, self._abort)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        for timer in (self._head_timer, self._reader_timer, self._half_closed_timer):
            if timer is not None:
                timer.cancel()
        transport = self.transport
        super().connection_lost(exc)
        untie(transport)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; give back the memory of its answers once a client that reads slowly has taken most of it."""
        try:
            if not self._upgraded and send(request, resp, self.transport):
                finished = resp, False
            else:
                finished = await super().finish_response(request, resp, start_time)
            with suppress(ConnectionError):
                await self._drain_helper()
        finally:
            for scope in request.get(ANSWER_SCOPES, ()):
                scope.close()
        if self._is_malformed or not request.content.is_eof():
            await self._drop_rest()
        return finished

    async def _drop_rest(self) -> None:
        """Say that nothing more will come, and throw away what the client still sends, until it closes, too.

        With bytes that nobody has read, closing would reset the connection, and the client's system would throw the answer
        away before the client, which first sends all it has, reads it. Source: RFC 9112 §9.6.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._half_closed_timer is not None:
            return
        self._droppable = MAX_DROPPED_BYTES
        transport.write_eof()
        transport.resume_reading()
        await asyncio.sleep(self._limits.close_s)  # a client that closes cancels this

    async def start(self) -> None:
        """Serve requests until the connection is to be closed; then have it closed even if its client reads no more."""
        transport = self.transport
        try:
            await super().start()
        finally:
            if transport is not None and transport.get_write_buffer_size():
                self._loop.call_later(self._limits.close_s, transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, and close the connection; anything else that comes here is a bug of ours."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun: another one cannot follow")
        request_id = create_uuid()
        if status == 400:
            self._is_malformed = True  # nobody can tell where it ends
            reply = explain_malformed(exc)
            # By its code: the parser's own message quotes what came, which may hold a key.
            log.warning("request.malformed", request_id=request_id, status=reply.status, code=reply.error["code"])
        else:
            log.error("request.crashed", request_id=request_id, exc_info=exc)
            message = "Fanout failed here; its log has the details"
            reply = render_error(status, message, type_="server_error", code="internal_error")
        response = web.Response(
            status=reply.status,
            body=encode_json({"error": reply.error}),
            content_type="application/json",
            headers={**SAFE_HEADERS, "x-request-id": request_id, "Connection": "close"},
        )
        response.force_close()
        return response

    def _abort(self) -> None:
        if self.transport is not None:
            # Not an orderly close, which would wait for the client to read what is still to be sent.
            self.transport.abort()


class RefusedConnection(asyncio.Protocol):
    """A connection beyond the bound: it is answered with an error and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the refusal before any request is read."""
        assert isinstance(transport, asyncio.Transport)
        message = "the server has as many connections as it may have; try again"
        reply = render_error(503, message, type_="server_error", code="too_many_connections")
        body = encode_json({"error": reply.error})
        headers: Mapping[str, object] = {
            **SAFE_HEADERS,
            "x-request-id": create_uuid(),
            "Retry-After": 1,
            "Connection": "close",
            "Content-Type": "application/json",
            "Content-Length": len(body),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        transport.write(f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode() + body)
        transport.close()


class BoundedServer(web.Server):
    """aiohttp's server with a bound on its connections, and paths without slashes too many."""

    def __init__(self, inner: web.Server, max_connections: int, limits: WaitLimits) -> None:
        make_request = inner.request_factory
        super().__init__(
            inner.request_handler,
            # Here, because nothing of aiohttp's that comes later may change a path before it is matched.
            request_factory=lambda message, *parts: make_request(tidy_path(message), *parts),
            handler_cancellation=inner.handler_cancellation,
            loop=asyncio.get_running_loop(),
        )
        self._limits = limits
        self._max_connections = max_connections
        self._open = 0
        self._refused = LogOnce("server.connections_exhausted", limit=max_connections)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._open -= 1
        super().connection_lost(handler, exc)

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""
        if self._open < self._max_connections:
            # Counted here: of a burst, all protocols are made before the first connection is.
            self._open += 1
            return Connection(self, self._limits)
        self._refused.write()
        return RefusedConnection()


class BoundedRunner(web.AppRunner):
    """aiohttp's runner with our limits on connections."""

    def __init__(self, app: web.Application, max_connections: int, *, shutdown_timeout: float) -> None:
        # A client that leaves cancels its handler, and with it every upstream call.
        super().__init__(app, access_log=None, handler_cancellation=True, shutdown_timeout=shutdown_timeout)
        self._max_connections = max_connections

    async def _make_server(self) -> web.Server:
        return BoundedServer(await super()._make_server(), self._max_connections, self.app[WAIT_LIMITS])


def log_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log failures to accept connections once a minute; asyncio tries again every second, and logs a traceback each time."""
    failed = LogOnce("server.accept_failed")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            failed.write(reason=errno.errorcode[error.errno])
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
