"""`POST /v1/responses`, OpenAI's responses with a list-valued `model`, and `GET /v1/responses/{id}` from the history."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import partial

from aiohttp import web

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.merge import has_answer
from fanout.core.messages import Message
from fanout.core.threads import run_in_thread
from fanout.rendering.errors import render_all_failed, render_error
from fanout.rendering.openai.past_responses import (
    PastResponseJson,
    read_answer,
    render_past_response,
    to_assistant_message,
)
from fanout.rendering.openai.response_events import ResponseEventEncoder, ResponseEventJson
from fanout.rendering.openai.responses import ResponseHeadJson, ResponseJson, render_response
from fanout.requests.bodies import validate_body
from fanout.requests.openai.responses import ResponsesBody
from fanout.server import event_stream
from fanout.server.afterwork import AFTERWORK
from fanout.server.dialects.openai.completions import HEADERS, LISTS, join_labels, plan_calls
from fanout.server.lifecycle import DISPATCHER, STORE
from fanout.server.middleware import auth, history
from fanout.server.openapi.endpoint import Endpoint, Events, list_call_answers, list_store_answers
from fanout.server.request_body import read_body
from fanout.server.resources.storage import store_failed_response, store_off_response
from fanout.server.responses import answer_response, error_response, json_response
from fanout.store.engine.text_columns import clean_text
from fanout.store.history.records import AnswerRow, StoredComparison

PATH = "/v1/responses"
MAX_TURNS = 200
"""Responses that a conversation may go back over."""
MAX_PARTS = 100_000
"""Messages and parts of them in all of those."""


async def create_response(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/responses`.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    body, now, began = await read_body(request, ResponsesBody), time.time(), time.monotonic()
    keeps = _keeps_texts(request)
    # Refused, not ignored: the client would send `previous_response_id` next, and lose the conversation.
    if body.store and not keeps:
        raise RequestError([Fault("store", "`true` is not allowed: no texts are kept here (FANOUT_HISTORY is not `full`)")])
    if body.previous_response_id is not None:
        try:
            conversation = await _load_conversation(request, body.previous_response_id)
        except StoreError as error:
            return store_failed_response(request, error, "history.read_failed", "the history cannot be read now")
        body.go_on_from(conversation)
    calls, deadline_s = await plan_calls(request, body)
    head = _render_head(
        body, f"resp_{uuid.uuid4().hex}", int(now), join_labels(calls), stored=keeps and body.store is not False
    )
    # Before any call, so that a request whose client leaves is in the history too.
    history.begin_comparison(
        request, head["id"], now, stream=body.stream, metadata=head["metadata"], keeps_texts=body.store is not False
    )
    if body.stream:
        return await event_stream.respond(
            request, ResponseEventEncoder(head, calls, began), calls, deadline_s, body.return_when
        )
    outcomes = await request.app[DISPATCHER].run(calls, deadline_s=deadline_s, return_when=body.return_when)
    if not has_answer(outcomes):
        return error_response(request, render_all_failed(outcomes))
    return await answer_response(outcomes, partial(render_response, head, outcomes, time.monotonic() - began))


async def get_response(request: web.Request) -> web.Response:
    """Serve `GET /v1/responses/{id}`."""
    if STORE not in request.app:
        return store_off_response(request, "no responses are kept")
    try:
        stored = await _find(request, request.match_info["id"])
    except StoreError as error:
        return store_failed_response(request, error, "history.read_failed", "the history cannot be read now")
    if stored is None or stored.comparison.request is None:
        return error_response(
            request, render_error(404, _explain_missing(request.match_info["id"]), param="id", code="not_found")
        )
    return json_response(await run_in_thread("bodies", _render_stored_response, stored))


def _render_stored_response(stored: StoredComparison) -> PastResponseJson:
    row = stored.comparison
    body = validate_body((row.request or "").encode(), ResponsesBody)
    labels = ",".join(label for _, _, label in stored.entries)
    return render_past_response(stored, _render_head(body, row.id, int(row.created), labels, stored=True))


def _keeps_texts(request: web.Request) -> bool:
    return STORE in request.app and request.app[STORE].history.mode == "full"


async def _find(request: web.Request, id_: str) -> StoredComparison | None:
    """Return a response of the caller's account."""
    request.app[AFTERWORK].finish()  # it may have ended just now
    stored = await request.app[STORE].history.find(clean_text(id_)[:256])
    # An id of another endpoint's comparison is no response, even if its texts are kept.
    if stored is None or stored.comparison.path != PATH:
        return None
    # As if it did not exist: whether an id of another account's is in use is none of the caller's business.
    return stored if auth.find_account(request) in (None, stored.comparison.account_id) else None


async def _load_conversation(request: web.Request, id_: str) -> Sequence[Message]:
    """Return the messages of a response and of those it went on from, the oldest first.

    Raises:
        RequestError: one of them is not kept, or has not exactly one answer, or all together are too long.
        StoreError: the history cannot be read.
    """
    if not _keeps_texts(request):
        raise _refuse("no texts are kept here (FANOUT_HISTORY is not `full`): send the conversation in `input`")
    turns: list[Sequence[Message]] = []
    parts, left, next_id = 0, request.app[DISPATCHER].settings.environment.max_body_bytes, id_ or None
    while next_id is not None:
        stored = await _find(request, next_id)
        if stored is None or stored.comparison.request is None:
            raise _refuse(_explain_missing(next_id))
        # Bytes as well as turns: each turn repeats nothing, but may be as long as a whole body.
        left -= len(stored.comparison.request) + sum(len(row.content or "") for row in stored.answers)
        if left < 0 or len(turns) == MAX_TURNS:
            raise _refuse(f"the conversation is too long: at most {MAX_TURNS} responses, and as many bytes as a body may have")
        # Validated like a body from outside, which may take long: so off the event loop, like those.
        turn, next_id = await run_in_thread("bodies", _read_turn, stored)
        parts += sum(1 + len(message.content) if isinstance(message.content, tuple) else 1 for message in turn)
        if parts > MAX_PARTS:
            raise _refuse(f"the conversation is too long: at most {MAX_PARTS:,} messages and parts of them")
        turns.append(turn)
    return [message for turn in reversed(turns) for message in turn]


def _read_turn(stored: StoredComparison) -> tuple[Sequence[Message], str | None]:
    """Return the messages of one response, its answer the last of them, and the id of the one before."""
    body = validate_body((stored.comparison.request or "").encode(), ResponsesBody)
    return [*body.to_own_messages(), to_assistant_message(read_answer(_find_answer(stored)))], body.previous_response_id


def _find_answer(stored: StoredComparison) -> AnswerRow:
    answered = [row for row in stored.answers if row.kind is None]
    # With several models there are several conversations: which one goes on is the caller's choice.
    if len(answered) != 1:
        wrong = f"`{stored.comparison.id}` has {len(answered)} answers: put the one to go on from into `input`"
        raise _refuse(wrong)
    return answered[0]


def _refuse(sentence: str) -> RequestError:
    return RequestError([Fault("previous_response_id", sentence, "previous_response_not_found")])


def _explain_missing(id_: str) -> str:
    return f"no response has the id {id_!a:.80}: it was never kept with its texts, or it is older than what is kept"


def _render_head(body: ResponsesBody, id_: str, created: int, model: str, *, stored: bool) -> ResponseHeadJson:
    """Return what a response repeats of its request."""
    own, extra = body.to_parameters(), body.model_extra or {}
    reasoning = body.reasoning.model_dump(exclude_unset=True) if body.reasoning else {}
    text = body.text.model_dump(exclude_unset=True) if body.text else {}
    return {
        "id": id_,
        "object": "response",
        "created_at": created,
        "model": model,
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": own.get("max_tokens"),
        "metadata": metadata if isinstance(metadata := extra.get("metadata"), dict) else {},
        "parallel_tool_calls": extra.get("parallel_tool_calls") is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": stored,
        "temperature": own.get("temperature"),
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_p": own.get("top_p"),
        # Fanout never shortens an input: a model compared on less than another would be compared unfairly.
        "truncation": "disabled",
        "user": own.get("user"),
    }


ENDPOINTS = (
    Endpoint(
        f"POST {PATH}",
        create_response,
        id="responses",
        tag="OpenAI and Konko",
        summary="Responses",
        description="OpenAI's responses: their clients work unmodified. Every provider is asked in its own format. Reasoning "
        "items of the input are left out, and tools are run by the caller. With FANOUT_HISTORY=full a response can be fetched, "
        f"and gone on from by `previous_response_id`; else send the whole conversation.\n\n{LISTS}",
        body=ResponsesBody,
        examples={
            "one model": {"model": "local/ngram-5", "input": "What does the return statement do?", "max_output_tokens": 20},
            "two models, streamed": {
                "model": ["local/ngram-3", "local/ngram-5"],
                "instructions": "Answer in one sentence.",
                "input": [{"role": "user", "content": "What does the return statement do?"}],
                "max_output_tokens": 20,
                "stream": True,
            },
        },
        headers=HEADERS,
        answers=list_call_answers(ResponseJson, Events(ResponseEventJson, done=False), "The items of every answer."),
    ),
    Endpoint(
        f"GET {PATH}/{{id}}",
        get_response,
        id="response",
        tag="OpenAI and Konko",
        summary="A response from the history",
        description="Only with FANOUT_HISTORY=full, and only if the request did not set `store` to false.",
        path_parameters={"id": ("Id of the response.", "resp_0b54b61c9df74f0f9d3b5a2d0c3c1f0e")},
        answers=list_store_answers(
            PastResponseJson, "The response.", missing="No response has this id, or its texts are not kept."
        ),
    ),
)
