"""Answering a request to one of OpenAI's endpoints: plan, call, answer whole or streamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from aiohttp import web

from fanout.core.errors import RequestError
from fanout.core.schema import Call, Failure
from fanout.rendering.errors import render_all_failed, render_error
from fanout.rendering.openai.answers import Dialect, OpenAiHeadJson
from fanout.rendering.openai.stream import ChunkEncoder
from fanout.requests.bodies import check_limits
from fanout.requests.openai.bodies import OpenAiBody
from fanout.server import event_stream
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.responses import error_response, json_response

LISTS = (
    "`model` may be a list of models, objects, or both: then there is a choice for each, with its own `model`, usage, time, "
    "cost or error. Fields that are not described here go on to OpenAI-compatible providers as they are; for others they "
    "stand in the choice's `ignored_parameters`."
)
"""Part of both endpoints' descriptions."""
HEADERS = ("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key")
NO_STREAM = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
"""OpenAI's own words, which some clients look for. Source: https://github.com/BerriAI/litellm/issues/5803"""


async def respond(request: web.Request, body: OpenAiBody, dialect: Dialect) -> web.StreamResponse:
    """Plan and make the calls of a request, and answer it.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    now, began = time.time(), time.monotonic()
    # Alone and first, because clients look for this message.
    if body.stream_options is not None and not body.stream:
        return error_response(request, render_error(400, NO_STREAM, param="stream_options"))
    if faults := list(dict.fromkeys(body.find_faults())):
        raise RequestError(faults)
    dispatcher = request.app[DISPATCHER]
    environment = dispatcher.settings.environment
    credentials, account_id = auth.caller_credentials(request), auth.account_id(request)
    calls = dispatcher.plan(body.to_request(credentials=credentials, account_id=account_id))
    check_limits(body.timeout_s, body.return_when, calls, environment.max_timeout_s)
    deadline_s = body.timeout_s or environment.timeout_s
    head: OpenAiHeadJson = {"id": str(uuid.uuid4()), "created": int(now), "model": _join_labels(calls)}
    # Before any call, so that a request whose client leaves is in the history too.
    history.begin_comparison(request, head["id"], now, stream=body.stream, metadata=body.get_passthrough().get("metadata"))
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        encoder = ChunkEncoder(dialect, head, calls, began, with_usage=with_usage)
        return await event_stream.respond(request, encoder, calls, deadline_s, body.return_when)
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=body.return_when)
    if all(isinstance(outcome.result, Failure) for outcome in outcomes):
        return error_response(request, render_all_failed(outcomes))
    return json_response(dialect.render_answer(outcomes, head, time.monotonic() - began))


def _join_labels(calls: Sequence[Call]) -> str:
    """Return the labels of all entries, in order; one that was requested twice stands there twice."""
    return ",".join({call.entry: call.target.label for call in calls}.values())
