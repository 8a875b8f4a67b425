"""The fault matrix as data: every fault known from providers, and the end of a call that meets it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.upstream.script import FAULT_SCRIPTS
from tests.support.upstream.server import Upstream, reserve_refusing_url

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ExpectedEnd:
    """The expected end of one call."""

    kind: str = "ok"
    attempts: int = 1
    status: int = 502
    """Status of a request with only this entry, if no piece has arrived."""
    code: str | None = None
    pieces: bool = False
    """Text arrives before it fails."""


OK = ExpectedEnd()
BUSY = ExpectedEnd("rate_limit", ATTEMPTS, 429)
DOWN = ExpectedEnd("server", ATTEMPTS)
HUNG = ExpectedEnd("timeout", ATTEMPTS, 504, "attempt_timeout")
BROKEN_OFF = ExpectedEnd("network", ATTEMPTS, code="answer_truncated")
NO_JSON = ExpectedEnd("malformed", code="invalid_json")

WHOLE = {
    **dict.fromkeys(("ok", "first-0.2", "tail-0.2", "bad_sse", "no_usage", "no_done", "surrogates", "unfinished"), OK),
    **dict.fromkeys(("500", "503", "529", "error-502"), DOWN),
    **dict.fromkeys(("429", "429-s-0.2", "429-ms-200", "429-s--5", "429-s-soon", "429-s-1e12"), BUSY),
    "429-date-1": ExpectedEnd("rate_limit", 1, 429),  # the time left is shorter than the wait
    "400": ExpectedEnd("bad_request", 1, 400),
    "400-leak": ExpectedEnd("bad_request", 1, 400),
    "401": ExpectedEnd("auth", code="invalid_api_key"),
    "hang": HUNG,
    "hang_body": HUNG,
    "drop": ExpectedEnd("network", ATTEMPTS, code="disconnected"),
    "cut": BROKEN_OFF,
    "rst": BROKEN_OFF,
    "bad_http": ExpectedEnd("malformed", code="bad_http"),
    "bad_chunk": BROKEN_OFF,
    "bad_json": NO_JSON,
    "html": NO_JSON,
    "empty_choices": ExpectedEnd("malformed", code="no_choices"),
    "mb-50": ExpectedEnd("malformed", code="answer_too_large"),
    "refused": ExpectedEnd("network", ATTEMPTS, code="connect_error"),
    "tls": ExpectedEnd("network", 1, code="tls_error"),
}
"""Ends of whole answers; two faults are no scripts: `refused` (nobody listens) and `tls` (an untrusted certificate)."""

STREAM = WHOLE | {
    "hang_body": ExpectedEnd("timeout", code="attempt_timeout", pieces=True),
    **dict.fromkeys(("cut", "rst", "bad_chunk"), ExpectedEnd("network", code="stream_truncated", pieces=True)),
    "unfinished": ExpectedEnd("malformed", code="answer_unfinished", pieces=True),
    "bad_json": ExpectedEnd("malformed", code="invalid_json", pieces=True),
    "mb-50": ExpectedEnd("malformed", code="answer_too_large", pieces=True),
    "error-502": ExpectedEnd("server", pieces=True),
}
"""Ends of streams: nothing is retried once a piece has arrived."""

HANGING = ("hang", "hang_body")

assert set(FAULT_SCRIPTS) < set(WHOLE)


@asynccontextmanager
async def inject_fault(upstream: Upstream, fault: str) -> AsyncGenerator[tuple[str, str]]:
    """Yield the base address where a fault occurs, and the model that shows it."""
    if fault == "refused":
        with reserve_refusing_url() as url:
            yield url, "ok"
    elif fault == "tls":
        async with Upstream(tls=True) as untrusted:
            yield untrusted.url, "ok"
    else:
        yield upstream.url, fault


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Upper bounds of a case; everything that does not hang ends long before them, even on a busy machine."""

    attempt_s: float = 20.0
    deadline_s: float = 30.0


def choose_time_limits(fault: str) -> TimeLimits:
    if fault in HANGING:
        return TimeLimits(attempt_s=0.4)
    return TimeLimits(deadline_s=0.9) if fault == "429-date-1" else TimeLimits()
