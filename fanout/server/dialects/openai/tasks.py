"""Requests for what models do beside answering: whole answers that are no messages, with a list-valued `model`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from fanout.core.ids import create_uuid
from fanout.core.merge import has_answer
from fanout.core.schema import Call, Credential, Outcome
from fanout.core.threads import run_in_thread
from fanout.dispatch.request import Request
from fanout.rendering.errors import render_all_failed
from fanout.rendering.openai.answers import OpenAiHeadJson
from fanout.requests.bodies import check_limits
from fanout.server.accounts.admission import admit
from fanout.server.dialects.openai.completions import join_labels
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.request_body import work_on_body
from fanout.server.responses import error_response

WriteAnswer = Callable[[Sequence[Outcome], OpenAiHeadJson, float], bytes]
"""Returns the answer of outcomes as JSON; it is given the request's identity and its seconds, too."""


class TaskBody(Protocol):
    """A request's body."""

    timeout_s: float | None
    return_when: int | None

    def to_request(self, credentials: Mapping[str, Credential], account_id: str | None) -> Request:
        """Return the request as `plan` takes it."""
        ...


async def run_task(request: web.Request, body: TaskBody, write: WriteAnswer) -> web.Response:
    """Make the calls of a body and answer with their outcomes; if all fail, with their error.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    now, began = time.time(), time.monotonic()
    dispatcher = request.app[DISPATCHER]
    environment = dispatcher.settings.environment
    calls = await work_on_body(request, _plan, request, body)
    check_limits(body.timeout_s, body.return_when, calls, environment.max_timeout_s)
    calls = await admit(request, calls)
    head: OpenAiHeadJson = {"id": create_uuid(), "created": int(now), "model": join_labels(calls)}
    # Before any call, so that a request whose client leaves is in the history too.
    history.begin_comparison(request, head["id"], now, stream=False)
    outcomes = await dispatcher.run(calls, deadline_s=body.timeout_s or environment.timeout_s, return_when=body.return_when)
    if not has_answer(outcomes):
        return error_response(request, render_all_failed(outcomes))
    # In a thread: a thousand vectors are millions of numbers.
    data = await run_in_thread("answers", write, outcomes, head, time.monotonic() - began)
    return web.Response(body=data, content_type="application/json")


def _plan(request: web.Request, body: TaskBody) -> Sequence[Call]:
    credentials, account_id = auth.find_caller_credentials(request), auth.choose_account(request)
    return request.app[DISPATCHER].plan(body.to_request(credentials, account_id))
