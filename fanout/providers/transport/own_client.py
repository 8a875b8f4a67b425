"""Requests whose head is written here, over aiohttp's connections and parser.

aiohttp's public client makes a dozen objects and a task for each request: 65 µs a call, of which these spare half
(2026-11-20). Pools, DNS, TLS and the parser stay aiohttp's. Their interface is not public, so only the tested versions are
used this way; with any other, and for whatever is out of the ordinary, `open_client` gives the public client.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.http_writer import _serialize_headers
from multidict import CIMultiDict
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.providers.transport.configured import find_proxy
from fanout.providers.transport.connection_errors import PARSER_LIMITS
from fanout.providers.transport.connections import TakenConnection
from fanout.providers.transport.connector import UpstreamConnector
from fanout.providers.transport.departures import report_departure
from fanout.providers.transport.openings import Taker

TESTED_VERSIONS: tuple[str, ...] = ("3.14.",)
"""Beginnings of the versions of aiohttp with which the tests of the transport have passed."""
MAX_HEADS = 64
"""Kept by one provider: some have an address for each model, and callers choose these."""
MAX_BODY_BYTES = 2**16
"""A longer body is written in pieces, as fast as the connection takes them: by the public client."""
MAX_EARLY_HEADS = 1024
"""Heads of status 1xx before an answer's own, which are no bytes of it; a proxy sends one every few seconds while it waits."""
UNUSUAL_HEADERS = frozenset({hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING, hdrs.EXPECT, hdrs.UPGRADE})
"""Headers by which a request would not be a plain head and a body of known length."""


class PreparedRequest(aiohttp.ClientRequest):
    """All of a POST but its body, made once and sent often."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(hdrs.METH_POST, url, headers=headers, loop=loop, session=session)
        self.key = super().connection_key
        del self.headers[hdrs.CONTENT_LENGTH]  # that of no body
        head = _serialize_headers(f"{self.method} {url.raw_path_qs} HTTP/1.1", self.headers)
        self._head = head.removesuffix(b"\r\n")

    @property
    def connection_key(self) -> ConnectionKey:
        """The key of the connections that this request may use, of which the base makes a new one for each call."""
        return self.key

    def write(self, protocol: ResponseHandler, body: bytes) -> None:
        """Send the request with its body, in one write."""
        # A parser for each response, as in aiohttp: the last one may have failed.
        protocol.set_response_params(read_until_eof=True, **PARSER_LIMITS)
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))


class OwnResponse:
    """A response whose body is still coming. At its end the connection goes back to the pool."""

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(
        self, message: aiohttp.http.RawResponseMessage, content: aiohttp.StreamReader, connection: Connection | TakenConnection
    ) -> None:
        self.status, self.headers = message.code, message.headers
        self.content = content
        self.connection: Connection | TakenConnection | None = connection
        content.on_eof(self._release)

    def close(self) -> None:
        """Close the connection, unless the body has come to its end."""
        connection, self.connection = self.connection, None
        if connection is not None:
            if self.content.exception() is None:
                self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            connection.close()

    def _release(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()


def read_whole(content: aiohttp.StreamReader) -> bytes:
    """Return a body of which all has come."""
    if not content.total_bytes:  # also of a response that can have no body, and no pieces of it
        return b""
    # As aiohttp's reader holds it: reading one piece by its methods takes eight calls.
    pieces = content._buffer
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class OwnClient:
    """Requests of one provider over one session. Its `post` returns `None` for a request that it leaves to the public client.

    Args:
        session: whose connections are used.
        connector: that of the session.
        settings: of the provider, which may have a proxy.
        timeout: of which only the limits of connecting count.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        connector: UpstreamConnector,
        settings: ProviderSettings,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._session, self.connector, self._settings, self._timeout = session, connector, settings, timeout
        self._prepared: dict[URL, PreparedRequest] = {}
        self._last: tuple[URL, PreparedRequest] | None = None
        """Of those: most providers have one address for all models."""

    def prepare(self, url: URL, headers: CIMultiDict[str], *, is_shared: bool) -> PreparedRequest | None:
        """Return a request that may be sent as it is; `None` for one that is out of the ordinary.

        Args:
            url: where to.
            headers: all but the length.
            is_shared: all requests to this address have these headers, so the head is kept.
        """
        if is_shared:
            if (last := self._last) and last[0] is url:
                return last[1]
            if found := self._prepared.get(url):
                self._last = url, found
                return found
        is_plain = url.scheme in self.connector.allowed_protocol_schema_set and UNUSUAL_HEADERS.isdisjoint(headers)
        if not is_plain or find_proxy(self._settings, url) is not None:
            return None
        request = PreparedRequest(self._session, url, headers)
        if is_shared:
            if len(self._prepared) >= MAX_HEADS:
                self._prepared.clear()
            self._prepared[url] = request
        return request

    async def post(self, request: PreparedRequest, body: bytes) -> OwnResponse:
        """Send a request and return its response as soon as the head is there; raise what aiohttp's own client raises."""
        connection = self.connector.take_idle(request.key) or await self._connect(request)
        try:
            protocol = connection.protocol
            assert protocol is not None
            try:
                request.write(protocol, body)
            finally:
                report_departure()
            return OwnResponse(*await _read_head(protocol), connection)
        except HttpProcessingError as error:
            connection.close()
            raise name_bad_http(request, error) from error
        except BaseException:
            # Also on cancellation: the answer to a request that was given up must never meet the next one.
            connection.close()
            raise

    def wait(self, request: PreparedRequest, taker: Taker) -> None:
        """Have a connection given to `taker` as soon as one is idle."""
        self.connector.wait(request, self._timeout, taker)

    def leave(self, request: PreparedRequest, taker: Taker) -> None:
        """Wait for a connection no longer."""
        self.connector.leave(request.key, taker)

    async def _connect(self, request: PreparedRequest) -> Connection:
        try:
            return await self.connector.connect(request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.url}") from error


def name_bad_http(request: PreparedRequest, error: HttpProcessingError) -> aiohttp.ClientResponseError:
    """Return what aiohttp's own client raises for a response that is not HTTP."""
    return aiohttp.ClientResponseError(
        request.request_info, (), status=error.code, message=error.message, headers=error.headers
    )


def is_early(message: aiohttp.http.RawResponseMessage) -> bool:
    """Return whether a head stands before that of the answer."""
    return 100 <= message.code < 200 and message.code != 101


async def _read_head(protocol: ResponseHandler) -> tuple[aiohttp.http.RawResponseMessage, aiohttp.StreamReader]:
    for _ in range(MAX_EARLY_HEADS + 1):
        message, content = await protocol.read()
        if not is_early(message):
            return message, content
    raise HttpProcessingError(message="too many heads before the answer's own")


def open_client(
    session: aiohttp.ClientSession | None, settings: ProviderSettings, timeout: aiohttp.ClientTimeout
) -> OwnClient | None:
    """Return the client for a session that `open_dispatcher` has opened; `None`: the public one is to be used."""
    connector = session.connector if session is not None else None
    if session is None or not isinstance(connector, UpstreamConnector) or not connector.may_write_heads:
        return None
    is_tested = aiohttp.__version__.startswith(TESTED_VERSIONS)
    return OwnClient(session, connector, settings, timeout) if is_tested else None
