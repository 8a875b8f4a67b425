"""Log lines and metrics of requests: one line for each request, one for each retry. Prompts and answers are in neither."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from fanout.core.json_text import JsonObject
from fanout.core.merge import sum_usage
from fanout.core.schema import NO_FILES_CODE, NO_MEMORY_CODE, Failure, Outcome, Retry
from fanout.observability import logs
from fanout.observability.log_once import LogOnce
from fanout.observability.logs import log
from fanout.server.lifecycle import METRICS, REQUEST_ID

SHORTAGES = {NO_FILES_CODE: LogOnce("server.out_of_files"), NO_MEMORY_CODE: LogOnce("server.answer_memory_full")}
MONITORED_ROUTES = ("/livez", "/health", "/readyz", "/metrics")
"""Fetched every few seconds by monitors: logged at level `debug` as long as all is well."""


def find_route(request: web.Request) -> str:
    """Return the route's pattern, not the path: metrics must not get a series for each id that somebody invents."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"


def log_request(
    request: web.Request,
    route: str,
    status: int,
    total_s: float,
    outcomes: list[Outcome],
    *,
    trace_id: str | None = None,
    account: str | None = None,
) -> None:
    """Write the line of a request, and count it."""
    slowest_s = max((outcome.timing.total_s for outcome in outcomes), default=None)
    overhead_s = None if slowest_s is None else max(total_s - slowest_s, 0.0)
    request.app[METRICS].record_request(request.method, route, status, total_s, overhead_s)
    if route in MONITORED_ROUTES and status < 400:
        log.debug("request.answered", request_id=request[REQUEST_ID], path=route, status=status)
        return
    path = request.rel_url.raw_path[:200]  # still quoted: a line break in it could forge a line of the log
    line: JsonObject = {"request_id": request[REQUEST_ID], "method": request.method, "path": path}
    line |= {"status": status, "total_ms": round(total_s * 1e3, 1)}
    if trace_id:
        line["trace_id"] = trace_id
    if account:
        line["account"] = account
    if outcomes:
        line |= _summarize(outcomes, overhead_s or 0.0)
    logs.info("request.answered", line)


def _summarize(outcomes: Sequence[Outcome], overhead_s: float) -> JsonObject:
    sums = sum_usage(outcomes)
    return {
        "overhead_ms": round(overhead_s * 1e3, 1),
        "models": [outcome.call.target.name for outcome in outcomes],
        "results": [outcome.result.kind if isinstance(outcome.result, Failure) else "ok" for outcome in outcomes],
        "call_ms": [round(outcome.timing.total_s * 1e3) for outcome in outcomes],
        "attempts": [outcome.timing.attempts for outcome in outcomes],
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "cost_usd": sums.cost_usd,
    }


def log_retry(event: Outcome | Retry) -> None:
    """Write the line of a retry. An observer of the Dispatcher."""
    failed = event.failure if isinstance(event, Retry) else event.result
    # Once in a while for all: with no file left every call fails, and a line for each would fill the disk as well.
    if isinstance(failed, Failure) and (shortage := SHORTAGES.get(failed.code or "")):
        shortage.write()
        return
    if isinstance(event, Retry):
        target, failure = event.call.target, event.failure
        log.warning(
            "call.retried",
            request_id=logs.request_id.get(),
            provider=target.provider,
            model=target.model,
            attempt=event.attempt,
            delay_ms=round(event.delay_s * 1e3),
            kind=failure.kind,
            status=failure.status,
            upstream_request_id=failure.request_id,
        )
