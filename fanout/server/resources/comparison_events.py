"""`/v1/comparisons/{id}/events` and `/cancel`: a running comparison, taken up again or stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import Doc, TypedDict

from fanout.core.errors import Fault, RequestError
from fanout.rendering.comparison import ComparisonChunkJson
from fanout.rendering.errors import render_error
from fanout.requests.bodies import ObjectBody
from fanout.server.lifecycle import DISPATCHER
from fanout.server.live_comparisons import CANCELLED, KEPT_S, LIVE_COMPARISONS, LiveComparison, follow
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import (
    EVENTS,
    INVALID,
    INVALID_PARAMETERS,
    Endpoint,
    Events,
    StatusAnswer,
    list_body_error_answers,
    list_error_answers,
    list_lookup_answers,
)
from fanout.server.request_body import read_body
from fanout.server.responses import error_response, json_response

LAST_EVENT_ID = "Last-Event-ID"


class CancelledComparisonJson(TypedDict):
    """Calls that were stopped."""

    id: Annotated[str, Doc("Id of the comparison.")]
    object: Literal["comparison.cancelled"]
    cancelled: Annotated[list[int], Doc("`index` of every call that still ran and is stopped now.")]


class CancelBody(ObjectBody):
    """The calls to stop."""

    index: list[int] | None = Field(None, max_length=1024)
    """`index` of each; absent: all."""


async def stream_comparison(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/comparisons/{id}/events`."""
    # Browsers send the header empty before the first event has arrived.
    given = request.headers.get(LAST_EVENT_ID, "").strip() or "0"
    # `isdigit` alone takes "²", and `int` raises for thousands of digits.
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise RequestError([Fault(LAST_EVENT_ID, f"{given!a:.40} is not allowed: the `id` of the last event that has arrived")])
    live = _find(request)
    if live is None:
        return _missing_response(request)
    after = int(given)
    # An id from the future is of another stream: waiting for it would hang until the client gives up.
    if after > live.log.last:
        raise RequestError([Fault(LAST_EVENT_ID, f"`{after}` is not allowed: the last event has the id {live.log.last}")])
    # Refused at once: a stream with a hole in it would look whole to its reader.
    if live.log.read(after) is None:
        message = "the events after this one are no longer kept: the stream has grown too long"
        return error_response(request, render_error(410, message, param=LAST_EVENT_ID, code="events_dropped"))
    return await follow(request, live, after)


async def cancel_comparison(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/comparisons/{id}/cancel`."""
    body = await read_body(request, CancelBody)
    live = _find(request)
    if live is None:
        return _missing_response(request)
    # By their scope and place: equal calls of other comparisons are none of ours, and that of a fusion grows its question.
    chosen = {(call.scope, call.index) for call in live.calls if body.index is None or call.index in body.index}
    stopped = request.app[DISPATCHER].cancel(lambda call: (call.scope, call.index) in chosen, CANCELLED)
    answer: CancelledComparisonJson = {
        "id": live.id,
        "object": "comparison.cancelled",
        "cancelled": sorted(call.index for call in stopped),
    }
    return json_response(answer)


def _find(request: web.Request) -> LiveComparison | None:
    return request.app[LIVE_COMPARISONS].find(request.match_info["id"], auth.find_account(request))


def _missing_response(request: web.Request) -> web.Response:
    message = (
        f"no stream is kept for {request.match_info['id']!a:.80}: it was not made with `resumable: true`, by this process, or "
        f"it ended more than {KEPT_S / 60:.0f} minutes ago"
    )
    return error_response(request, render_error(404, message, param="id", code="comparison_not_found"))


ID = {"id": ("Id of the comparison.", "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e")}
MISSING = list_error_answers(404, "No such comparison runs, or ended in the last ten minutes, in this process.")
ENDPOINTS = (
    Endpoint(
        "GET /v1/comparisons/{id}/events",
        stream_comparison,
        id="comparison_events",
        tag="History",
        summary="A running comparison, taken up again",
        description="The events of a `POST /v1/completion` with `stream` and `resumable`, from the beginning or after the one "
        "that `Last-Event-ID` names, to the end. Several may read the same stream.",
        path_parameters=ID,
        headers=(LAST_EVENT_ID,),
        answers={
            **list_lookup_answers(ComparisonChunkJson, ""),
            200: StatusAnswer("Server-sent events.", {EVENTS: Events(ComparisonChunkJson)}),
            **list_error_answers(400, INVALID_PARAMETERS),
            **MISSING,
            **list_error_answers(410, "The events that follow are no longer kept."),
        },
    ),
    Endpoint(
        "POST /v1/comparisons/{id}/cancel",
        cancel_comparison,
        id="cancel_comparison",
        tag="History",
        summary="Stop calls of a running comparison",
        description="The calls end at once, here and at the provider; their text so far stays, with an error of kind "
        "`cancelled`. A comparison can be stopped if it was made with `resumable`.",
        path_parameters=ID,
        body=CancelBody,
        answers={
            **list_lookup_answers(CancelledComparisonJson, "The calls that were stopped."),
            **list_error_answers(400, INVALID),
            **MISSING,
            **list_body_error_answers(),
        },
    ),
)
