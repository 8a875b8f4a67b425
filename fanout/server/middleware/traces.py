"""Spans of requests, where traces are on: those of their calls are within them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from fanout.core.schema import Failure, Outcome
from fanout.observability.metrics import name_method
from fanout.server.lifecycle import REQUEST_ID
from fanout.server.middleware.auth import find_account
from fanout.server.middleware.history import COMPARISON
from fanout.server.middleware.request_log import MONITORED_ROUTES, find_route

if TYPE_CHECKING:
    from fanout.observability.tracing import RequestSpan, Tracing


def begin_span(request: web.Request, tracing: Tracing) -> RequestSpan | None:
    """Begin the span of a request; those of monitors, every few seconds, have none."""
    route = find_route(request)
    if route in MONITORED_ROUTES:
        return None
    return tracing.start_request(name_method(request.method), route, request.rel_url.raw_path, request.headers)


def end_span(span: RequestSpan, request: web.Request, status: int, outcomes: Sequence[Outcome]) -> None:
    """End it, with what finds the same request in the log and in the history."""
    comparison = request.get(COMPARISON)
    failures = sum(isinstance(outcome.result, Failure) for outcome in outcomes)
    span.end(
        status,
        request_id=request[REQUEST_ID],
        comparison_id=comparison.id if comparison else None,
        account=find_account(request),
        calls=len(outcomes),
        failures=failures,
    )
