"""Failures of connections in our own words: aiohttp's messages name hosts and addresses."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from typing import Self, TypedDict

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from fanout.core.errors import ProviderError
from fanout.core.schema import NO_FILES_CODE, Failure, FailureKind
from fanout.core.turns import READ_BYTES
from fanout.providers.transport.response import Response

CONNECTION_ERRORS = (aiohttp.ClientError, OSError)
"""The exceptions that a connection may end with; timeouts are among them."""


class ParserLimits(TypedDict):
    max_line_size: int
    max_field_size: int
    max_headers: int
    read_bufsize: int


MAX_HEAD_BYTES = 2**16
"""Of one line of an answer's head; security headers alone exceed aiohttp's own 8 KiB."""
MAX_HEADERS = 4096
"""As many as a head of that size may have of 16 bytes each."""
PARSER_LIMITS: ParserLimits = {
    "max_line_size": MAX_HEAD_BYTES,
    "max_field_size": MAX_HEAD_BYTES,
    "max_headers": MAX_HEADERS,
    "read_bufsize": READ_BYTES,
}
"""Arguments of a `ClientSession` that asks providers."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
NO_FILES = Failure(
    "internal",
    "Fanout has as many files and connections open as the system allows",
    code=NO_FILES_CODE,
    retry_after_s=1.0,
    should_retry=True,
)
TLS_ERRORS = (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError)
# Subclasses stand before their bases.
FAILURES: tuple[tuple[tuple[type[Exception], ...], FailureKind, str, str], ...] = (
    (
        TLS_ERRORS,
        "network",
        "tls_error",
        "the TLS handshake with `{name}` failed: its certificate is not trusted, or it does not speak TLS",
    ),
    ((aiohttp.ClientProxyConnectionError,), "network", "proxy_error", "cannot connect to the proxy for `{name}`: {reason}"),
    ((aiohttp.ClientHttpProxyError,), "network", "proxy_error", "the proxy for `{name}` refused the connection: {reason}"),
    ((aiohttp.ClientConnectorDNSError,), "network", "dns_error", "the host name of `{name}` does not resolve"),
    ((TimeoutError,), "network", "connect_timeout", "no connection to `{name}` within {limit_s:g} s"),
    ((aiohttp.ClientConnectorError,), "network", "connect_error", "cannot connect to `{name}`: {reason}"),
    ((aiohttp.ServerDisconnectedError,), "network", "disconnected", "`{name}` closed the connection without an answer"),
    ((aiohttp.ClientPayloadError,), "network", "answer_truncated", "`{name}` broke off its answer"),
    ((aiohttp.ClientResponseError,), "malformed", "bad_http", "what `{name}` sent is not HTTP"),
    ((Exception,), "network", "connection_lost", "the connection to `{name}` was lost: {reason}"),
)
"""Exceptions, kind, code and message of each failure; the first row that matches is taken."""
NEVER_SENT = frozenset({"tls_error", "proxy_error", "dns_error", "connect_timeout", "connect_error", NO_FILES_CODE})
"""Codes of failures before there was a connection."""


def to_provider_error(name: str, error: Exception, connect_limit_s: float | None) -> ProviderError:
    """Return the failure that a connection error is for the provider `name`.

    Args:
        name: the provider, as the message names it.
        error: one of `CONNECTION_ERRORS`.
        connect_limit_s: the time that connecting was allowed to take.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    if number in OUT_OF_FILES:
        return ProviderError(NO_FILES)  # nothing is wrong with the provider
    if _is_too_long(error):
        sentence = f"`{name}` sent a head with a line of over {MAX_HEAD_BYTES:,} bytes, or over {MAX_HEADERS:,} lines"
        return ProviderError(Failure("malformed", sentence, code="head_too_large"))
    kind, code, sentence = next(row[1:] for row in FAILURES if isinstance(error, row[0]))
    reason = os.strerror(number) if number and number > 0 else "no reason given"
    reason = f"status {error.status}" if isinstance(error, aiohttp.ClientHttpProxyError) else reason
    message = sentence.format(name=name, reason=reason, limit_s=connect_limit_s)
    should_retry = False if code == "tls_error" else None  # a certificate does not change between two attempts
    return ProviderError(Failure(kind, message, code=code, should_retry=should_retry))


def _is_too_long(error: BaseException | None) -> bool:
    """Return whether an error comes of the size of a head; aiohttp tells that only by a cause of the cause, or its words."""
    while error is not None and not (isinstance(error, LineTooLong) or "Too many headers" in str(error)):
        error = error.__cause__
    return error is not None


class NamedErrors:
    """A context that turns connection errors into failures of the provider `name`. Without state: all requests share one."""

    __slots__ = ("_connect_limit_s", "_name")

    def __init__(self, name: str, connect_limit_s: float | None) -> None:
        self._name, self._connect_limit_s = name, connect_limit_s

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CONNECTION_ERRORS):
            raise to_provider_error(self._name, error, self._connect_limit_s) from error


class ConnectionWatch:
    """A context in which reading a body ends when its connection does.

    On a malformed chunk, aiohttp's C parser (3.14.5, `_http_parser.pyx`, `feed_data`) closes the connection and forgets the
    body, whose reader then waits for ever. Only chunked bodies need it.
    """

    __slots__ = ("_closed", "_content", "_is_closed")

    def __init__(self, response: Response) -> None:
        protocol = response.connection.protocol if response.connection else None
        self._content = response.content
        self._closed = None if protocol is None else protocol.closed  # `is None`: a protocol has a length, so it may be falsy
        self._is_closed = protocol is not None and self._closed is None

    def __enter__(self) -> Self:
        if self._is_closed:
            self._wake()
        if self._closed:
            # The connection outlives the response; asyncio must not report what ends it later as "never retrieved".
            self._closed.remove_done_callback(_retrieve_exception)
            self._closed.add_done_callback(_retrieve_exception)
            self._closed.add_done_callback(self._wake)
        return self

    def __exit__(self, *_: object) -> None:
        if self._closed:
            self._closed.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("the connection was closed within the body"))


def _retrieve_exception(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()
