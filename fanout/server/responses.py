"""HTTP responses around rendered values: JSON answers, and errors in the form that the path's clients read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from fanout.core.answer_size import measure_answer
from fanout.core.json_text import dump_in_steps, encode_json
from fanout.core.long_json import join_in_steps
from fanout.core.schema import Completion, Outcome
from fanout.core.threads import run_in_thread
from fanout.rendering.errors import ErrorReply
from fanout.rendering.scale import render_scale_error

MAX_INLINE_BYTES = 128 * 1024
"""Answers above it are written in a thread: so much takes half a millisecond."""
SCALE_PATHS = ("/v2/", "/v3/", "/v4/", "/user-info")
"""Beginnings of the paths whose clients are Scale's."""


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=encode_json(value), content_type="application/json")


async def answer_response(outcomes: Sequence[Outcome], render: Callable[[], object]) -> web.Response:
    """Return the JSON that is rendered of answers; a large one is rendered and written in a thread."""
    answers = (outcome.result for outcome in outcomes if isinstance(outcome.result, Completion))
    if sum(map(measure_answer, answers)) <= MAX_INLINE_BYTES:
        return json_response(render())
    return web.Response(body=await run_in_thread("answers", _write, render), content_type="application/json")


def _write(render: Callable[[], object]) -> bytearray:
    return join_in_steps(dump_in_steps(render()))


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
