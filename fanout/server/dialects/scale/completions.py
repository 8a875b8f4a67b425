"""Scale GenAI Platform's `POST /v4/completions` (also `/v3`, `/v2`) and `POST /v4/chat-completions`.

One model, one answer: a list of models has no place in this shape. Its clients read for 60 s and want no `[DONE]`.
Source: the request and response types of scale-gp 0.1.0a62 and scale-egp 1.1.15.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from fanout.config.catalogue import Catalogue
from fanout.core.errors import Fault, RequestError
from fanout.core.ids import create_uuid
from fanout.core.json_text import encode_json
from fanout.core.messages import ImagePart
from fanout.core.schema import Call, Delta, Failure, Outcome
from fanout.rendering.errors import render_all_failed
from fanout.rendering.scale import (
    ScaleChatCompletionJson,
    ScaleCompletionJson,
    ScaleErrorJson,
    ScaleStreamErrorJson,
    Shape,
    render_scale_answer,
    render_scale_failure,
    shape_chat_completion,
    shape_completion,
)
from fanout.requests.scale import ScaleBody, ScaleChatBody, ScaleCompletionBody
from fanout.server import event_stream
from fanout.server.accounts.admission import admit
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.openapi.endpoint import Endpoint, Events, list_call_answers, list_error_answers
from fanout.server.request_body import read_body, work_on_body
from fanout.server.responses import answer_response, error_response

DEADLINE_S = 55.0
"""Below the 60 s after which Scale's clients give up."""


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v4/completions`, `/v3/completions` and `/v2/completions`."""
    return await _respond(request, await read_body(request, ScaleCompletionBody), shape_completion)


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v4/chat-completions`."""
    return await _respond(request, await read_body(request, ScaleChatBody), shape_chat_completion)


async def _respond(request: web.Request, body: ScaleBody, shape: Shape) -> web.StreamResponse:
    dispatcher = request.app[DISPATCHER]
    calls = await admit(request, await work_on_body(request, _plan, request, body))
    history.begin_comparison(request, create_uuid(), time.time(), stream=body.stream)
    if body.stream:
        return await event_stream.respond(request, ScaleEncoder(shape), calls, DEADLINE_S, None)
    # One outcome: `_check_calls` has refused sets, and this dialect has no `n`.
    (outcome,) = outcomes = await dispatcher.run(calls, deadline_s=DEADLINE_S)
    if isinstance(outcome.result, Failure):
        return error_response(request, render_all_failed(outcomes))
    return await answer_response(outcomes, partial(render_scale_answer, shape, outcome.call, outcome.result))


def _plan(request: web.Request, body: ScaleBody) -> Sequence[Call]:
    dispatcher = request.app[DISPATCHER]
    model = _resolve_name(body.model, dispatcher.catalogue, dispatcher.settings.default_provider.get("scale"))
    credentials, account_id = auth.find_caller_credentials(request), auth.choose_account(request, body.account_id or None)
    calls = dispatcher.plan(body.to_request(model, credentials=credentials, account_id=account_id))
    _check_calls(calls)
    return calls


def _resolve_name(name: str, catalogue: Catalogue, default_provider: str | None) -> str:
    """Return the model's name in the catalogue; an unknown id belongs to the provider that is configured for those."""
    # Our own names come first: a default provider must not take over a model that is configured here.
    is_known = catalogue.find(name) is not None or catalogue.find_set(name) is not None
    return name if is_known or default_provider is None else f"{default_provider}/{name}"


def _check_calls(calls: Sequence[Call]) -> None:
    """Check that the answer has a place for everything, and that nothing would be dropped silently.

    Raises:
        RequestError: there are several models, or images for one that takes none.
    """
    # All calls are for one entry, or they are refused just below.
    call = calls[0]
    if len(calls) > 1:
        raise RequestError([Fault("model", "names several models; this endpoint answers for one: ask `/v1/completion`")])
    contents = [message.content for message in call.query.messages or () if isinstance(message.content, tuple)]
    has_images = any(isinstance(part, ImagePart) for content in contents for part in content)
    if has_images and ("images" in call.fitted.ignored or (call.refusal and call.refusal.kind == "unsupported")):
        raise RequestError([Fault("images", f"`{call.target.name}` takes no images", "unsupported_parameter")])


@dataclass(slots=True)
class ScaleEncoder:
    """Unnamed events, each of the shape of a whole answer; the body's end is the end."""

    shape: Shape
    has_text: bool = False
    """Pieces have been sent."""

    def encode_delta(self, piece: Delta) -> bytes:
        """Return the event of a piece."""
        # Scale's events have text alone, and one answer.
        if not piece.text or piece.choice_index:
            return b""
        self.has_text = True
        return _event(self.shape(piece.text, {"finish_reason": None}, None))

    def encode_outcome(self, outcome: Outcome) -> bytes:
        """Return the last event."""
        if isinstance(outcome.result, Failure):
            # The status was sent before: a client learns of the failure by the event's name alone.
            return b"event: error\n" + _event(render_scale_failure(outcome.result))
        # Without pieces, the answer came whole.
        return _event(render_scale_answer(self.shape, outcome.call, outcome.result, "" if self.has_text else None))

    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return nothing: the last event was the end."""
        return b""


def _event(fields: object) -> bytes:
    return b"data: " + encode_json(fields) + b"\n\n"


UNDER_A_MINUTE = "One model, one answer, in less than the 60 s after which Scale's clients give up."
HEADERS = ("x-selected-account-id", "Idempotency-Key")
INVALID = list_error_answers(422, "Broken JSON, or wrong fields, all of them named in `error.details`.", error=ScaleErrorJson)


def _text_endpoint(version: str, id_: str, summary: str) -> Endpoint:
    events = Events((ScaleCompletionJson, ScaleStreamErrorJson), done=False)
    return Endpoint(
        f"POST /{version}/completions",
        create_completion,
        id=id_,
        tag="Scale",
        summary=summary,
        description=f"Scale GenAI Platform's completions: scale-gp and scale-egp work unmodified. {UNDER_A_MINUTE}",
        body=ScaleCompletionBody,
        examples={
            "one model": {
                "model": "local/ngram-5",
                "prompt": "The return statement",
                "model_parameters": {"temperature": 0.5, "max_tokens": 20, "stop_sequences": ["."]},
            }
        },
        headers=HEADERS,
        answers={**list_call_answers(ScaleCompletionJson, events, "The answer.", error=ScaleErrorJson), **INVALID},
    )


ENDPOINTS = (
    _text_endpoint("v2", "scale_completions_v2", "The same as `/v4/completions`"),
    _text_endpoint("v3", "scale_completions_v3", "The same as `/v4/completions`"),
    _text_endpoint("v4", "scale_completions", "One completion"),
    Endpoint(
        "POST /v4/chat-completions",
        create_chat_completion,
        id="scale_chat_completions",
        tag="Scale",
        summary="The next message of a conversation",
        description=UNDER_A_MINUTE,
        body=ScaleChatBody,
        examples={
            "one model": {
                "model": "local/ngram-5",
                "messages": [{"role": "user", "content": "What does the return statement do?"}],
                "instructions": "Answer briefly.",
                "model_parameters": {"max_tokens": 20},
            }
        },
        headers=HEADERS,
        answers={
            **list_call_answers(
                ScaleChatCompletionJson,
                Events((ScaleChatCompletionJson, ScaleStreamErrorJson), done=False),
                "The answer.",
                error=ScaleErrorJson,
            ),
            **INVALID,
        },
    ),
)
