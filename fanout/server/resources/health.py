"""`GET /livez`, `GET /health`, `GET /readyz` and `GET /metrics`: the state of the server itself."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from typing_extensions import Doc, TypedDict

from fanout.server.lifecycle import LIFECYCLE, METRICS
from fanout.server.openapi.endpoint import ACCESS, JSON, Endpoint, StatusAnswer, list_error_answers, list_lookup_answers
from fanout.server.workers.peers import PEERS


class StatusJson(TypedDict):
    status: Annotated[Literal["ok", "ready", "starting", "stopping"], Doc("State of the process or of the server.")]


async def get_livez(request: web.Request) -> web.Response:
    """Serve `GET /livez` and `GET /health`."""
    return _status_response({"status": "ok"})


async def get_readyz(request: web.Request) -> web.Response:
    """Serve `GET /readyz`: 200 from the start until the stop."""
    lifecycle = request.app[LIFECYCLE]
    # Not ready while it stops, so that a load balancer sends nothing more while running requests come to their end.
    is_leaving = lifecycle.is_draining or lifecycle.is_stopping
    if lifecycle.is_ready and not is_leaving:
        return _status_response({"status": "ready"})
    return _status_response({"status": "stopping" if is_leaving else "starting"}, 503)


async def get_metrics(request: web.Request) -> web.Response:
    """Serve `GET /metrics`."""
    peers = request.app.get(PEERS)
    page = await (peers.render_metrics() if peers else request.app[METRICS].render())
    return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _status_response(status: StatusJson, code: int = 200) -> web.Response:
    return web.json_response(status, status=code)


TEXT = {"type": "string"}
FORBIDDEN = list_error_answers(403, ACCESS[403].description)
ENDPOINTS = (
    Endpoint(
        "GET /livez",
        get_livez,
        id="livez",
        tag="Server",
        summary="The process answers",
        answers={200: StatusAnswer("It does.", {JSON: StatusJson}), **FORBIDDEN},
        is_public=True,
    ),
    Endpoint(
        "GET /health",
        get_livez,
        id="health",
        tag="Server",
        summary="The process answers, as at `/livez`",
        description="Many servers of models have this path, and their clients probe it.",
        answers={200: StatusAnswer("It does.", {JSON: StatusJson}), **FORBIDDEN},
        is_public=True,
    ),
    Endpoint(
        "GET /readyz",
        get_readyz,
        id="readyz",
        tag="Server",
        summary="The server takes requests",
        answers={
            200: StatusAnswer("It has started and is not stopping.", {JSON: StatusJson}),
            503: StatusAnswer("It is starting or stopping.", {JSON: StatusJson}),
            **FORBIDDEN,
        },
        is_public=True,
    ),
    Endpoint(
        "GET /metrics",
        get_metrics,
        id="metrics",
        tag="Server",
        summary="Figures for Prometheus",
        answers={**list_lookup_answers(StatusJson, ""), 200: StatusAnswer("Prometheus' text format.", {"text/plain": TEXT})},
    ),
)
