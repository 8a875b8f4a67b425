"""What every request passes: its id, who may call, errors in their envelope, one log line, its figures."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from fanout.core.errors import RequestError, did_you_mean
from fanout.core.merge import sum_usage
from fanout.core.schema import Failure, Outcome, Retry
from fanout.observability import logs
from fanout.observability.logs import log
from fanout.rendering import errors
from fanout.server.lifecycle import DISPATCHER, LIFECYCLE, METRICS, REQUEST_ID
from fanout.server.middleware import auth, history, idempotency
from fanout.server.middleware.history import CLIENT_LEFT, COMPARISON, REQUEST_OUTCOMES, RequestOutcomes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STARTED_RESPONSE = web.RequestKey("begun", web.StreamResponse)
"""The response whose head has left: no other one can be sent."""
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
CODES = {
    400: "invalid_body",
    401: "invalid_api_key",
    403: "forbidden",
    404: "unknown_path",
    405: "method_not_allowed",
    409: "request_under_way",
    413: "body_too_large",
    415: "unsupported_media_type",
    503: "server_stopping",
}
ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, X-Api-Key, X-OpenAI-Api-Key, X-Request-Id, X-Selected-Account-Id"
)
EXPOSED_HEADERS = "x-request-id, x-comparison-id, x-should-retry, Idempotent-Replayed, Retry-After"
SCALE_PATHS = ("/v2/", "/v3/", "/v4/", "/user-info")


@web.middleware
async def handle_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every request with something honest, and writes its line."""
    began = time.perf_counter()
    given = request.headers.get("x-request-id", "")
    request_id = given if REQUEST_ID_PATTERN.fullmatch(given) else str(uuid.uuid4())
    request[REQUEST_ID] = request_id
    seen = RequestOutcomes()
    tokens = logs.request_id.set(request_id), REQUEST_OUTCOMES.set(seen)
    lifecycle = request.app[LIFECYCLE]
    lifecycle.begin_request()
    status = CLIENT_LEFT
    try:
        response = await _answered(request, handler)
        status = response.status
    except ConnectionError:  # nobody receives what is returned now
        response = web.Response(status=CLIENT_LEFT)
    finally:
        lifecycle.end_request()
        seen.over = True
        seconds = time.perf_counter() - began
        history.record_comparison(request, status, seconds, seen)
        _written(request, status, seconds, seen.outcomes)
        logs.request_id.reset(tokens[0])
        REQUEST_OUTCOMES.reset(tokens[1])
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await _honest(request, handler)
    if response.status >= 400 and isinstance(response, web.Response) and request.path.startswith(SCALE_PATHS):
        return errors.for_scale(response)
    return response


async def _honest(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        refused = _refused(request)
        if refused is not None:
            return refused
        repeatable = request.method == "POST" and idempotency.HEADER in request.headers
        return await (idempotency.respond(request, handler) if repeatable else handler(request))
    except RequestError as error:
        return errors.bad_request(error.faults, 422 if request.path.startswith(SCALE_PATHS) else 400)
    except web.HTTPException as error:
        return _enveloped(request, error)
    except Exception as error:
        if isinstance(error, ConnectionError) and _is_gone(request):
            raise
        log.exception("bug in a handler", request_id=request[REQUEST_ID], path=request.rel_url.raw_path[:200])
        if STARTED_RESPONSE in request and request.transport:
            request.transport.abort()  # half an answer is out: another head would be read as part of it
        return errors.envelope(
            500,
            "Fanout failed here; its log has the details",
            type_="server_error",
            code="internal_error",
            headers={"x-should-retry": "false"},
        )


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _refused(request: web.Request) -> web.Response | None:
    """Who may not call, in the order in which it is asked; a preflight's answer."""
    if request.app[LIFECYCLE].is_stopping and request.path not in auth.PUBLIC_PATHS:
        raise web.HTTPServiceUnavailable(text="the server is stopping", headers={"Retry-After": "5", "Connection": "close"})
    environment = request.app[DISPATCHER].settings.environment
    if not environment.api_keys:
        auth.check_host(request)
    if request.method == "OPTIONS" and "Origin" in request.headers and "Access-Control-Request-Method" in request.headers:
        return _preflight(request, environment.cors_origins)
    auth.authenticate(request, environment.api_keys)
    return None


def _preflight(request: web.Request, origins: Sequence[str]) -> web.Response:
    if not _allowed_origin(request, origins):
        raise web.HTTPForbidden(text="this origin may not call; FANOUT_CORS_ORIGINS names those that may")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
        },
    )


def _allowed_origin(request: web.Request, origins: Sequence[str]) -> str | None:
    origin = request.headers.get("Origin")
    return origin if origin and ("*" in origins or origin in origins) else None


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal: headers that every response has, streams too."""
    request[STARTED_RESPONSE] = response
    response.headers["Server"] = "fanout"
    response.headers["x-request-id"] = request.get(REQUEST_ID) or "-"
    if comparison := request.get(COMPARISON):
        response.headers["x-comparison-id"] = comparison.id
    origins = request.app[DISPATCHER].settings.environment.cors_origins
    if origins:
        response.headers["Vary"] = "Origin"
        if origin := _allowed_origin(request, origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS


def _enveloped(request: web.Request, error: web.HTTPException) -> web.Response:
    message = error.text or error.reason
    if error.status == 404 and request.match_info.http_exception is error:
        paths = [resource.canonical for resource in request.app.router.resources()]
        message = f"unknown path `{request.path[:200]}`{did_you_mean(request.path, paths) or '; served: ' + ', '.join(paths)}"
    elif error.status == 405:
        message = f"`{request.method}` is not allowed at `{request.path[:200]}`; allowed: {error.headers.get('Allow')}"
    elif error.status == 413:
        most = request.app[DISPATCHER].settings.environment.max_body_bytes
        message = f"the body is larger than {most} bytes; FANOUT_MAX_BODY_BYTES sets how large one may be"
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    kept = {name: error.headers[name] for name in ("Allow", "Retry-After", "Connection") if name in error.headers}
    if error.status == 401:
        kept["WWW-Authenticate"] = "Bearer"
    return errors.envelope(error.status, message, type_=kind, code=CODES.get(error.status), headers=kept)


def _written(request: web.Request, status: int, seconds: float, outcomes: list[Outcome]) -> None:
    """The request's one line and its figures. Prompts and answers are in neither."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "unknown"
    outcomes.sort(key=lambda outcome: outcome.call.index)
    slowest_s = max((outcome.timing.total_s for outcome in outcomes), default=None)
    overhead_s = None if slowest_s is None else max(seconds - slowest_s, 0.0)
    request.app[METRICS].served(request.method, route, status, seconds, overhead_s)
    if route in ("/livez", "/readyz", "/metrics") and status < 400:
        log.debug("request", request_id=request[REQUEST_ID], path=route, status=status)
        return
    path = request.rel_url.raw_path[:200]  # as it came: unquoted, it could forge a line
    line: dict[str, Any] = {"request_id": request[REQUEST_ID], "method": request.method, "path": path}
    line |= {"status": status, "total_ms": round(seconds * 1e3, 1)}
    if outcomes:
        line |= _of_calls(outcomes, overhead_s or 0.0)
    log.info("request", **line)


def _of_calls(outcomes: Sequence[Outcome], overhead_s: float) -> dict[str, Any]:
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


def log_retries(event: Outcome | Retry) -> None:
    """An observer of the Dispatcher: one line a retry."""
    if isinstance(event, Retry):
        target, failure = event.call.target, event.failure
        log.warning(
            "retry",
            request_id=logs.request_id.get(),
            provider=target.provider,
            model=target.model,
            attempt=event.attempt,
            delay_ms=round(event.delay_s * 1e3),
            kind=failure.kind,
            status=failure.status,
            upstream_request_id=failure.request_id,
        )
