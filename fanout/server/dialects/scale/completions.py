"""Scale GenAI Platform's dialect: `POST /v4/completions` (also `/v3`, `/v2`) and `POST /v4/chat-completions`.

One model, one answer: a list of models cannot be said in this shape. Its clients read for 60 s and want no `[DONE]`.
Source: the request and response types of scale-gp 0.1.0a62 and scale-egp 1.1.15.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from fanout.config.catalogue import Catalogue
from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.messages import ImagePart
from fanout.core.sampling import Sampling
from fanout.core.schema import Answer, Call, Choice, Delta, Failure, Outcome
from fanout.core.usage import Usage, total_tokens
from fanout.dispatch.plan import Entry, Request
from fanout.rendering.choices import adjusted
from fanout.rendering.encoding import encode_json
from fanout.rendering.errors import all_failed_reply, render_failure
from fanout.server import request_body
from fanout.server.dialects.scale.bodies import ScaleBody, ScaleChatBody, ScaleCompletionBody
from fanout.server.event_stream import respond
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.responses import error_response, json_response

DEADLINE_S = 55.0
"""Below the 60 s after which Scale's clients give up."""
DEFAULT_TEMPERATURE = 0.2


async def completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v4/completions`, `/v3/completions` and `/v2/completions`."""
    return await _answered(request, await request_body.read_body(request, ScaleCompletionBody))


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v4/chat-completions`."""
    return await _answered(request, await request_body.read_body(request, ScaleChatBody))


async def _answered(request: web.Request, asked: ScaleBody) -> web.StreamResponse:
    dispatcher = request.app[DISPATCHER]
    parameters = asked.model_parameters.sampling() if asked.model_parameters else {}
    defaults = {} if "temperature" in parameters else {"temperature": DEFAULT_TEMPERATURE}
    name = _name(asked.model, dispatcher.catalogue, dispatcher.settings.default_provider.get("scale"))
    calls = dispatcher.plan(
        Request(
            entries=(Entry(name),),
            sampling=Sampling(**{**defaults, **parameters}),
            passthrough=asked.passed_on(),
            defaults=frozenset(defaults),
            credentials=auth.caller_credentials(request),
            account_id=asked.account_id or auth.account_id(request),
            **asked.question(),
        )
    )
    _check(calls)
    history.begin_comparison(request, str(uuid.uuid4()), time.time(), stream=asked.stream)
    if asked.stream:
        return await respond(request, _Frames(asked), calls, DEADLINE_S, None)
    outcomes = await dispatcher.run(calls, deadline_s=DEADLINE_S)
    result = outcomes[0].result
    if isinstance(result, Failure):
        return error_response(request, all_failed_reply(outcomes))
    choice = result.choices[0]
    return json_response(_answer(asked, _text(choice.message), calls[0], choice, result.usage))


def _name(asked: str, catalogue: Catalogue, default: str | None) -> str:
    """A custom id goes to the provider that is configured for those."""
    known = catalogue.find(asked) is not None or catalogue.find_set(asked) is not None
    return asked if known or default is None else f"{default}/{asked}"


def _check(calls: Sequence[Call]) -> None:
    """What this shape cannot say, and what would be lost without a word.

    Raises:
        RequestError: several models, or images for one that takes none.
    """
    call = calls[0]
    if len(calls) > 1:
        raise RequestError([Fault("model", "names a set; this endpoint answers for one model: ask `/v1/completion`")])
    contents = [message.content for message in call.query.messages or () if isinstance(message.content, tuple)]
    images = any(isinstance(part, ImagePart) for content in contents for part in content)
    if images and ("images" in call.fitted.ignored or (call.refusal and call.refusal.kind == "unsupported")):
        raise RequestError([Fault("images", f"`{call.target.name}` takes no images", "unsupported_parameter")])


class _Frames:
    """Unnamed events, each of the shape of a whole answer; the body's end is the end."""

    def __init__(self, asked: ScaleBody) -> None:
        self._asked = asked
        self._said_something = False

    def delta(self, piece: Delta) -> bytes:
        text = _text(piece)
        if not text or piece.choice_index:
            return b""
        self._said_something = True
        return _event({**self._asked.shape(text, {"finish_reason": None}), "token_usage": None})

    def outcome(self, outcome: Outcome) -> bytes:
        result = outcome.result
        if isinstance(result, Failure):
            return b"event: error\n" + _event({"detail": result.message, "error": render_failure(result)})
        choice = result.choices[0]
        text = "" if self._said_something else _text(choice.message)  # an answer that came whole
        return _event(_answer(self._asked, text, outcome.call, choice, result.usage))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        return b""


def _event(fields: Mapping[str, Any]) -> bytes:
    return b"data: " + encode_json(fields) + b"\n\n"


def _answer(asked: ScaleBody, text: str, call: Call, choice: Choice, usage: Usage | None) -> dict[str, Any]:
    changed = {"ignored_parameters": call.fitted.ignored, "adjusted_parameters": adjusted(call)}
    end = {
        "finish_reason": choice.finish_reason or choice.native_finish_reason,
        "response_metadata": changed if any(changed.values()) else None,
    }
    return {**asked.shape(text, end), "token_usage": _tokens(usage)}


def _text(said: Answer | Delta) -> str:
    """A model that refuses says so in its `refusal`, for which there is no other place here."""
    return said.text or said.refusal or ""


def _tokens(usage: Usage | None) -> dict[str, Any] | None:
    total = total_tokens(usage.input_tokens, usage.output_tokens) if usage else None
    if usage is None or total is None:
        return None
    return {"prompt": usage.input_tokens, "completion": usage.output_tokens, "total": total}
