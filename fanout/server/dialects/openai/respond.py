"""How OpenAI's two dialects, text and chat, answer a list-valued `model`: plan, call, answer whole or streamed.

Source: https://github.com/openai/openai-openapi; what the choices hold beyond it is Thiggle's and Fanout's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from fanout.core.choices import list_choices
from fanout.core.errors import RequestError
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Credential, Failure, Outcome
from fanout.dispatch.plan import Request
from fanout.rendering.errors import all_failed_reply, error_reply
from fanout.server.dialects.openai.bodies import OpenAiBody
from fanout.server.dialects.openai.stream import Dialect, Frames, end_of, place_of, totals_of
from fanout.server.event_stream import respond
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.request_body import check_limits
from fanout.server.responses import error_response, json_response

NO_STREAM = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
"""OpenAI's own words, which some clients look for. Source: https://github.com/BerriAI/litellm/issues/5803"""


async def answered(request: web.Request, asked: OpenAiBody, dialect: Dialect) -> web.StreamResponse:
    """Plans, calls and answers.

    Raises:
        RequestError: with what is wrong between the fields.
    """
    now, began = time.time(), time.monotonic()
    if asked.stream_options is not None and not asked.stream:
        return error_response(request, error_reply(400, NO_STREAM, param="stream_options"))
    if faults := list(dict.fromkeys(asked.faults())):
        raise RequestError(faults)
    dispatcher = request.app[DISPATCHER]
    environment = dispatcher.settings.environment
    credentials, account_id = auth.caller_credentials(request), auth.account_id(request)
    calls = dispatcher.plan(request_of(asked, credentials=credentials, account_id=account_id))
    check_limits(asked.timeout_s, asked.return_when, calls, environment.max_timeout_s)
    deadline_s = asked.timeout_s or environment.timeout_s
    id_ = str(uuid.uuid4())
    head = {"id": id_, "created": int(now), "model": _labels(calls)}
    history.begin_comparison(request, id_, now, stream=asked.stream, metadata=asked.passed_on().get("metadata"))
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        frames = Frames(dialect, {**head, "object": dialect.chunk_object}, calls, began, with_usage=usage)
        return await respond(request, frames, calls, deadline_s, asked.return_when)
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=asked.return_when)
    if all(isinstance(outcome.result, Failure) for outcome in outcomes):
        return error_response(request, all_failed_reply(outcomes))
    return json_response(whole(outcomes, dialect, head, time.monotonic() - began))


def whole(outcomes: Sequence[Outcome], dialect: Dialect, head: Mapping[str, Any], total_s: float) -> dict[str, Any]:
    """The answer to a request of which at least one call was answered.

    Args:
        head: its `id`, `created` and `model`.
    """
    return {
        **head,
        "object": dialect.answer_object,
        "choices": [choice for outcome in outcomes for choice in _choices(outcome, head["created"], dialect)],
        "system_fingerprint": _fingerprint(outcomes),
        **totals_of(outcomes, total_s),
    }


def request_of(
    asked: OpenAiBody, *, credentials: Mapping[str, Credential] | None = None, account_id: str | None = None
) -> Request:
    """What is asked. A contract's own defaults hold where the caller says nothing, and are known as such."""
    own = asked.own()
    missing = {name: value for name, value in asked.defaults.items() if own.get(name) is None}
    return Request(
        entries=asked.entries(),
        sampling=Sampling(**{**asked.settled(own, {}), **missing}),
        passthrough=asked.passed_on(),
        defaults=frozenset(missing),
        strict=bool(asked.strict_parameters),
        native_n=True,
        credentials=credentials or {},
        account_id=account_id,
        **asked.question(),
    )


def _labels(calls: Sequence[Call]) -> str:
    """Of every entry, in order; twice where the same model was asked for twice."""
    return ",".join({call.entry: call.target.label for call in calls}.values())


def _choices(outcome: Outcome, created: int, dialect: Dialect) -> list[Mapping[str, Any]]:
    """A call's choices in a whole answer. What had arrived before it failed is its first choice's."""
    partial = outcome.result.partial if isinstance(outcome.result, Failure) else None
    return [
        {
            **place_of(outcome.call, number),
            **dialect.answer(outcome.call, choice, None if number else partial),
            "created": created,
            **end_of(outcome, choice, first=number == 0),
        }
        for number, choice in enumerate(list_choices(outcome))
    ]


def _fingerprint(outcomes: Sequence[Outcome]) -> str | None:
    """The backend's fingerprint, where one alone answered."""
    found = {outcome.result.system_fingerprint for outcome in outcomes if isinstance(outcome.result, Completion)}
    return found.pop() if len(found) == 1 else None
