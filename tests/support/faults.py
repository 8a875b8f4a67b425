"""The fault matrix as data: every fault that a provider is known to show, and how a request that meets it is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.playbook import MATRIX
from tests.support.upstreams import Upstream, refusing_url

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Expected:
    """How one call ends."""

    kind: str = "ok"
    attempts: int = 1
    status: int = 502
    """Of a request that asked for nothing else and got no piece."""
    code: str | None = None
    pieces: bool = False
    """Text had come before it failed."""


OK = Expected()
BUSY = Expected("rate_limit", ATTEMPTS, 429)
DOWN = Expected("server", ATTEMPTS)
HUNG = Expected("timeout", ATTEMPTS, 504, "attempt_timeout")
BROKEN_OFF = Expected("network", ATTEMPTS, code="answer_truncated")
NO_JSON = Expected("malformed", code="invalid_json")

WHOLE = {
    **dict.fromkeys(("ok", "first-0.2", "tail-0.2", "bad_sse", "no_usage", "no_done", "surrogates", "unfinished"), OK),
    **dict.fromkeys(("500", "503", "529", "error-502"), DOWN),
    **dict.fromkeys(("429", "429-s-0.2", "429-ms-200", "429-s--5", "429-s-soon", "429-s-1e12"), BUSY),
    "429-date-1": Expected("rate_limit", 1, 429),  # asked with less time than the wait takes
    "400": Expected("bad_request", 1, 400),
    "400-leak": Expected("bad_request", 1, 400),
    "401": Expected("auth", code="invalid_api_key"),
    "hang": HUNG,
    "hang_body": HUNG,
    "drop": Expected("network", ATTEMPTS, code="disconnected"),
    "cut": BROKEN_OFF,
    "rst": BROKEN_OFF,
    "bad_http": Expected("malformed", code="bad_http"),
    "bad_chunk": BROKEN_OFF,
    "bad_json": NO_JSON,
    "html": NO_JSON,
    "empty_choices": Expected("malformed", code="no_choices"),
    "mb-50": Expected("malformed", code="answer_too_large"),
    "refused": Expected("network", ATTEMPTS, code="connect_error"),
    "tls": Expected("network", 1, code="tls_error"),
}
"""Faults that the playbook has no name for: `refused` (nobody listens there) and `tls` (a certificate nobody trusts)."""

STREAM = WHOLE | {
    "hang_body": Expected("timeout", code="attempt_timeout", pieces=True),
    **dict.fromkeys(("cut", "rst", "bad_chunk", "unfinished"), Expected("network", code="stream_truncated", pieces=True)),
    "bad_json": Expected("malformed", code="invalid_json", pieces=True),
    "mb-50": Expected("malformed", code="answer_too_large", pieces=True),
    "error-502": Expected("server", pieces=True),
}
"""Nothing is asked again once a piece is out."""

HANGING = ("hang", "hang_body")

assert set(MATRIX) < set(WHOLE)


@asynccontextmanager
async def faulty(upstream: Upstream, fault: str) -> AsyncGenerator[tuple[str, str]]:
    """The base address where `fault` is met, and the model that shows it."""
    if fault == "refused":
        with refusing_url() as url:
            yield url, "ok"
    elif fault == "tls":
        async with Upstream(tls=True) as stranger:
            yield stranger.url, "ok"
    else:
        yield upstream.url, fault


@dataclass(frozen=True, slots=True)
class Times:
    """Upper bounds in a case. Whatever does not hang ends long before them, on a busy machine too."""

    attempt_s: float = 20.0
    deadline_s: float = 30.0


def times(fault: str) -> Times:
    if fault in HANGING:
        return Times(attempt_s=0.4)
    return Times(deadline_s=0.9) if fault == "429-date-1" else Times()
