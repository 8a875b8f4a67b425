"""HTTP responses around rendered values: JSON answers, and errors in the form that the path's clients read."""

from __future__ import annotations

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.rendering.errors import ErrorReply
from fanout.rendering.scale import render_scale_error

SCALE_PATHS = ("/v2/", "/v3/", "/v4/", "/user-info")
"""Beginnings of the paths whose clients are Scale's."""


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=encode_json(value), content_type="application/json")


def is_scale_path(request: web.Request) -> bool:
    """Return whether the clients of a request's path are Scale's."""
    return request.path.startswith(SCALE_PATHS)


def error_response(request: web.Request, reply: ErrorReply) -> web.Response:
    """Return an error as the path's clients read it."""
    # By path, not by handler: errors of the middleware and of unknown paths are read by the same clients.
    body = render_scale_error(reply.error) if is_scale_path(request) else {"error": reply.error}
    return web.Response(
        status=reply.status, body=encode_json(body), content_type="application/json", headers=dict(reply.headers)
    )
