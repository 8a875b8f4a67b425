"""Answers to what is not HTTP, or not HTTP as it is spoken here."""

from __future__ import annotations

from aiohttp import http_exceptions

from fanout.rendering.errors import ErrorReply, render_error


class UnspokenVersionError(Exception):
    """A request line names a version of HTTP that its parser takes and nothing here speaks, such as 2.0."""


TOO_LARGE = (431, "head_too_large", "the request's head is too large: 8190 bytes a line, 128 headers")
UNSPOKEN = (505, "http_version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here, no other version")
MALFORMED: tuple[tuple[type[Exception], str, tuple[int, str, str]], ...] = (
    (http_exceptions.LineTooLong, "", TOO_LARGE),
    (Exception, "Too many headers", TOO_LARGE),
    (UnspokenVersionError, "", UNSPOKEN),
    (http_exceptions.BadStatusLine, "Invalid HTTP version:\n", UNSPOKEN),
    (
        http_exceptions.BadStatusLine,
        "",
        (400, "malformed_request", "the first line is no HTTP request line: `GET /path HTTP/1.1`"),
    ),
    (http_exceptions.InvalidURLError, "", (400, "malformed_request", "the request's address is malformed")),
    (http_exceptions.InvalidHeader, "", (400, "malformed_request", "a header is malformed")),
    (http_exceptions.PayloadEncodingError, "", (400, "malformed_request", "the body is not framed as its headers say")),
)
"""Exceptions of the parser, words of its message, and the status, code and message of the answer; the first match is taken."""
OTHER = (400, "malformed_request", "the request is not HTTP/1.1")


def explain_malformed(error: BaseException | None) -> ErrorReply:
    """Return the answer to what the parser refused."""
    found = (answer for kind, words, answer in MALFORMED if isinstance(error, kind) and words in str(error))
    status, code, sentence = next(found, OTHER)
    return render_error(status, sentence, code=code)
