"""The middleware around every request: its id, access, errors in their envelope, its log line and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from functools import partial

from aiohttp import web

from fanout.core.errors import RequestError, StoppingError
from fanout.core.ids import create_uuid
from fanout.core.suggestions import did_you_mean
from fanout.limits.answer_memory import AnswerScope
from fanout.observability import logs
from fanout.observability.logs import log
from fanout.rendering.errors import render_error, render_faults
from fanout.rendering.history import CLIENT_LEFT
from fanout.server.accounts.admission import ADMISSION, RATE_HEADERS, AdmissionError
from fanout.server.accounts.callers import OWN_KEY_PATH, Caller, find_caller
from fanout.server.accounts.directory import KEY_DIRECTORY
from fanout.server.afterwork import AFTERWORK
from fanout.server.connections import ANSWER_SCOPES
from fanout.server.lifecycle import DISPATCHER, FORWARD, LIFECYCLE, REQUEST_ID
from fanout.server.middleware import auth, compression, cors, history, idempotency, traces
from fanout.server.middleware.history import COMPARISON, REQUEST_OUTCOMES, RequestOutcomes
from fanout.server.middleware.request_log import find_route, log_request
from fanout.server.middleware.wrong_keys import WRONG_KEYS
from fanout.server.openapi.endpoint import Handler
from fanout.server.responses import error_response, is_scale_path
from fanout.server.routes import ROUTES
from fanout.server.whole_response import SAFE_HEADERS, write_whole

STARTED_RESPONSE = web.RequestKey("started_response", web.StreamResponse)
"""The response whose head has been sent: no other response can follow."""
FORWARDED = web.RequestKey("forwarded", bool)
"""Another process answers the request, and counts it."""
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
KEPT_HEADERS = ("Accept-Encoding", "Allow", "Connection", "Retry-After")
"""Headers that an exception may add to the answer."""
CODES = {
    400: "invalid_body",
    401: "invalid_api_key",
    403: "forbidden",
    404: "unknown_path",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "request_under_way",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "too_many_wrong_keys",
    503: "server_stopping",
}


@web.middleware
async def handle_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request, whatever happens to it, and record how it ended."""
    began = time.perf_counter()
    given = request.headers.get("x-request-id", "")
    request_id = given if REQUEST_ID_PATTERN.fullmatch(given) else create_uuid()
    request[REQUEST_ID] = request_id
    collected = RequestOutcomes()
    # Context variables, since log lines and outcomes also come from the tasks of the calls, which inherit them. Never reset:
    # aiohttp makes a task for each request, and they end with it.
    logs.request_id.set(request_id)
    REQUEST_OUTCOMES.set(collected)
    logs.account.set(None)
    tracing = request.app[DISPATCHER].tracing
    span = traces.begin_span(request, tracing) if tracing is not None else None
    lifecycle = request.app[LIFECYCLE]
    lifecycle.begin_request()
    if request.method != "POST":  # it may read what has just been counted; calls are made by POST alone
        request.app[AFTERWORK].finish()
    status = CLIENT_LEFT  # stays if the handler is cancelled
    try:
        response = await _respond(request, handler)
        await compression.pack(request, response)
        if _adds_ordinary_headers(request):
            write_whole(request, response, _list_headers(request))
        status = response.status
    except ConnectionError:  # the client has disconnected: nobody receives this response
        response = web.Response(status=CLIENT_LEFT)
    finally:
        _hand_over_answers(request, collected, is_sent=status != CLIENT_LEFT)
        lifecycle.end_request()
        collected.close()
        if span is not None:
            traces.end_span(span, request, status, collected.outcomes)
        total_s, trace_id = time.perf_counter() - began, span.trace_id if span is not None else None
        route = find_route(request)
        # Later: it takes a tenth of a millisecond that the client need not wait for.
        request.app[AFTERWORK].add(
            partial(history.record_comparison, request, route, status, total_s, collected),
            partial(_count_end, request, route, status, total_s, collected, trace_id, logs.account.get()),
        )
    return response


def _count_end(
    request: web.Request,
    route: str,
    status: int,
    total_s: float,
    collected: RequestOutcomes,
    trace_id: str | None,
    account: str | None,
) -> None:
    if FORWARDED not in request:
        log_request(request, route, status, total_s, collected.outcomes, trace_id=trace_id, account=account)
    # A connection to a provider keeps the context of the call that opened it, and would keep these as long.
    collected.outcomes = []


def _hand_over_answers(request: web.Request, collected: RequestOutcomes, *, is_sent: bool) -> None:
    """Leave the memory of answers to the connection, which gives it back when the response has left."""
    scopes = {outcome.call.scope for outcome in collected.outcomes}
    request[ANSWER_SCOPES] = held = frozenset(scope for scope in scopes if isinstance(scope, AnswerScope))
    if not is_sent:
        for scope in held:
            scope.close()


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler; turn whatever it raises, except a disconnected client, into an error in its envelope."""
    try:
        preflight = _check_access(request)
        if preflight is not None:
            return preflight
        if (caller := find_caller(request)).key_id is not None:
            if FORWARD in request.app and (answer := _forward_to_counts(request, caller)) is not None:
                return await answer
            handler = _close_admission(handler)
        has_key = request.method == "POST" and idempotency.HEADER in request.headers
        return await (idempotency.respond(request, handler) if has_key else handler(request))
    except _HeadAnsweredError as answered:
        return answered.response
    except RequestError as error:
        return error_response(request, render_faults(error.faults, 422 if is_scale_path(request) else 400))
    except AdmissionError as error:
        return error_response(request, error.reply)
    except StoppingError as error:
        return _respond_http_error(request, _refuse_while_stopping(error))
    except auth.WrongKeyError as error:
        try:
            await request.app[WRONG_KEYS].slow(request.remote)
        except web.HTTPTooManyRequests as refusal:
            return _respond_http_error(request, refusal)
        return _respond_http_error(request, error)
    except web.HTTPException as error:
        return _respond_http_error(request, error)
    except Exception as error:
        if isinstance(error, ConnectionError) and _has_left(request):
            raise
        log.exception("request.crashed", request_id=request[REQUEST_ID], path=request.rel_url.raw_path[:200])
        if STARTED_RESPONSE in request and request.transport:
            request.transport.abort()  # half an answer has been sent: the client would read a second head as part of it
        message, headers = "Fanout failed here; its log has the details", {"x-should-retry": "false"}
        reply = render_error(500, message, type_="server_error", code="internal_error", headers=headers)
        return error_response(request, reply)


def _forward_to_counts(request: web.Request, caller: Caller) -> Awaitable[web.StreamResponse] | None:
    """Have one process of several answer what a key with limits by the minute or at once sends, so that they are exact."""
    limits = caller.limits
    if limits.requests_per_minute is None and limits.tokens_per_minute is None and limits.in_flight is None:
        return None
    if request.content_type != "application/json" and request.path != OWN_KEY_PATH:  # a file is too large, and calls nothing
        return None
    return request.app[FORWARD](request, (caller.key_id or "").encode())


def _close_admission(handler: Handler) -> Handler:
    """Wrap a handler, which may outlive its client: what its calls have reserved and not used is given back at its end."""

    async def run(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            admission = request.get(ADMISSION)
            if admission and not admission.is_detached:
                admission.close()

    return run


def _refuse_while_stopping(error: StoppingError) -> web.HTTPException:
    return web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5", "Connection": "close"})


class _HeadAnsweredError(Exception):
    """The answer to a `HEAD` is known: the head that a stream would have had."""

    def __init__(self, stream: web.StreamResponse) -> None:
        self.response = web.Response(status=stream.status, headers=stream.headers)
        super().__init__()


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _check_access(request: web.Request) -> web.Response | None:
    """Refuse requests while stopping, from foreign hosts, or without a valid key; answer preflights."""
    # The order matters: a stopping server answers 503 to everybody, and a preflight never carries a key.
    if request.app[LIFECYCLE].is_stopping and not auth.is_public(request):
        raise _refuse_while_stopping(StoppingError())
    environment, stored = request.app[DISPATCHER].settings.environment, request.app[KEY_DIRECTORY]
    requires_keys = environment.api_keys or stored.requires_keys
    if not requires_keys:
        auth.check_host(request)
        auth.check_origin(request, environment.cors_origins)
    if cors.is_preflight(request):
        return cors.respond_preflight(request, environment.cors_origins)
    if requires_keys:
        auth.authenticate(request, environment.api_keys, stored)
    return None


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every response has, streams too. A signal handler: `on_response_prepare`."""
    if request.method == "HEAD" and not isinstance(response, web.Response):
        # A stream: its bytes would be read as the beginning of the connection's next answer.
        raise _HeadAnsweredError(response)
    request[STARTED_RESPONSE] = response
    response.headers.update(SAFE_HEADERS)
    if not request.content.is_eof():
        # The rest of the body is on its way and will not be read: whatever follows on this connection would be lost.
        response.force_close()
        response.headers["Connection"] = "close"
    response.headers.update(_list_headers(request))
    cors.add_headers(request, response, request.app[DISPATCHER].settings.environment.cors_origins)


def _list_headers(request: web.Request) -> dict[str, str]:
    headers = {"x-request-id": request.get(REQUEST_ID) or "-"}
    if (rates := request.get(RATE_HEADERS)) is not None:
        headers.update(rates)
    if comparison := request.get(COMPARISON):
        headers["x-comparison-id"] = comparison.id
    return headers


def _adds_ordinary_headers(request: web.Request) -> bool:
    """Return whether those of `_list_headers` and `SAFE_HEADERS` are all that is added to an ordinary answer."""
    app = request.app
    return not app[DISPATCHER].settings.environment.cors_origins and len(app.on_response_prepare) == 1


def _respond_http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    headers = {name: error.headers[name] for name in KEPT_HEADERS if name in error.headers}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    reply = render_error(error.status, _explain(request, error), type_=kind, code=CODES.get(error.status), headers=headers)
    return error_response(request, reply)


def _explain(request: web.Request, error: web.HTTPException) -> str:
    # aiohttp's own sentences, such as `Not Found`, do not help the caller to correct the request.
    if error.status == 404 and request.match_info.http_exception is error:
        paths = list(dict.fromkeys(endpoint.template for endpoint in request.app[ROUTES].endpoints))
        return f"unknown path `{request.path[:200]}`{did_you_mean(request.path, paths) or '; served: ' + ', '.join(paths)}"
    if error.status == 405:
        return f"`{request.method}` is not allowed at `{request.path[:200]}`; allowed: {error.headers.get('Allow')}"
    if error.status == 413:
        max_bytes = request.app[DISPATCHER].settings.environment.max_body_bytes
        return f"the body is larger than {max_bytes} bytes, the limit set by FANOUT_MAX_BODY_BYTES"
    return error.text or error.reason
