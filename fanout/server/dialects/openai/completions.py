"""`POST /v1/completions` and `POST /v1/chat/completions`, OpenAI's as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from aiohttp import web

from fanout.core.errors import RequestError
from fanout.core.ids import create_uuid
from fanout.core.merge import has_answer
from fanout.core.schema import Call
from fanout.rendering.errors import render_all_failed, render_error
from fanout.rendering.openai.answers import Dialect, OpenAiHeadJson
from fanout.rendering.openai.chat import CHAT, ChatChunkJson, ChatCompletionJson
from fanout.rendering.openai.stream import ChunkEncoder
from fanout.rendering.openai.text import TEXT, TextChunkJson, TextCompletionJson
from fanout.requests.bodies import check_limits
from fanout.requests.openai.bodies import OpenAiBody
from fanout.requests.openai.chat import ChatBody, DeploymentChatBody
from fanout.requests.openai.text import CompletionsBody, DeploymentCompletionsBody
from fanout.server import event_stream
from fanout.server.accounts.admission import admit
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.openapi.endpoint import Endpoint, Events, list_call_answers
from fanout.server.request_body import read_body, work_on_body
from fanout.server.responses import answer_response, error_response

LISTS = (
    "`model` may be a list of models, objects, or both: then there is a choice for each, with its own `model`, usage, time, "
    "cost or error. Fields that are not described here go on to OpenAI-compatible providers as they are; for others they "
    "stand in the choice's `ignored_parameters`."
)
"""Part of both endpoints' descriptions."""
HEADERS = ("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key")
AZURE = (
    "For Azure's clients: the path's model replaces the body's, the key may stand in `api-key`, and `api-version` means "
    "nothing here."
)
"""Description of the endpoints at Azure's paths."""
DEPLOYMENT = {"model": ("Name of the model.", "local/ngram-5")}
NO_STREAM = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
"""OpenAI's own words, which some clients look for. Source: https://github.com/BerriAI/litellm/issues/5803"""


async def _respond(request: web.Request, body: OpenAiBody, dialect: Dialect) -> web.StreamResponse:
    """Plan and make the calls of a request, and answer it.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    now, began = time.time(), time.monotonic()
    # Alone and first, because clients look for this message.
    if body.stream_options is not None and not body.stream:
        return error_response(request, render_error(400, NO_STREAM, param="stream_options"))
    calls, deadline_s = await plan_calls(request, body)
    head: OpenAiHeadJson = {"id": create_uuid(), "created": int(now), "model": join_labels(calls)}
    # Before any call, so that a request whose client leaves is in the history too.
    history.begin_comparison(request, head["id"], now, stream=body.stream, metadata=body.get_passthrough().get("metadata"))
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        encoder = ChunkEncoder(dialect, head, calls, began, with_usage=with_usage)
        return await event_stream.respond(request, encoder, calls, deadline_s, body.return_when)
    outcomes = await request.app[DISPATCHER].run(calls, deadline_s=deadline_s, return_when=body.return_when)
    # One answer is a success: the failures stand in their choices. Only where there is none has the status something to tell.
    if not has_answer(outcomes):
        return error_response(request, render_all_failed(outcomes))
    return await answer_response(outcomes, partial(dialect.render_answer, outcomes, head, time.monotonic() - began))


async def plan_calls(request: web.Request, body: OpenAiBody) -> tuple[Sequence[Call], float]:
    """Return the calls of a request, admitted by its key, and its deadline in seconds.

    Raises:
        AdmissionError: see `admit`.
        RequestError: with everything that is wrong between the fields.
    """
    environment = request.app[DISPATCHER].settings.environment
    calls = await work_on_body(request, _plan, request, body)
    check_limits(body.timeout_s, body.return_when, calls, environment.max_timeout_s)
    return await admit(request, calls), body.timeout_s or environment.timeout_s


def _plan(request: web.Request, body: OpenAiBody) -> Sequence[Call]:
    # Once each: several entries may repeat the same fault of what they inherit.
    if faults := list(dict.fromkeys(body.find_faults())):
        raise RequestError(faults)
    credentials, account_id = auth.find_caller_credentials(request), auth.choose_account(request)
    return request.app[DISPATCHER].plan(body.to_request(credentials=credentials, account_id=account_id))


def join_labels(calls: Sequence[Call]) -> str:
    """Return the labels of all listed entries, in order; one that was requested twice stands there twice."""
    return ",".join({call.entry: call.target.label for call in calls if not call.is_member}.values())


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/completions`."""
    return await _respond(request, await read_body(request, CompletionsBody), TEXT)


async def create_deployment_completion(request: web.Request) -> web.StreamResponse:
    """Serve Azure's `POST /openai/deployments/{model}/completions`."""
    fields = {"model": request.match_info["model"]}
    return await _respond(request, await read_body(request, DeploymentCompletionsBody, fields), TEXT)


async def create_deployment_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serve Azure's `POST /openai/deployments/{model}/chat/completions`."""
    fields = {"model": request.match_info["model"]}
    return await _respond(request, await read_body(request, DeploymentChatBody, fields), CHAT)


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/chat/completions`."""
    return await _respond(request, await read_body(request, ChatBody), CHAT)


ENDPOINTS = (
    Endpoint(
        "POST /v1/completions",
        create_completion,
        id="completions",
        tag="OpenAI and Konko",
        summary="Text completions",
        description=f"OpenAI's text completions as Konko serves them: their clients work unmodified.\n\n{LISTS}",
        body=CompletionsBody,
        examples={
            "one model": {"model": "local/ngram-5", "prompt": "The return statement", "max_tokens": 20},
            "two models, two prompts": {
                "model": ["local/ngram-3", "local/ngram-5"],
                "prompt": ["The return statement", "A class definition"],
                "max_tokens": 20,
                "seed": 7,
            },
        },
        headers=HEADERS,
        answers=list_call_answers(TextCompletionJson, Events(TextChunkJson), "A choice for every prompt, model and sample."),
    ),
    Endpoint(
        "POST /v1/chat/completions",
        create_chat_completion,
        id="chat_completions",
        tag="OpenAI and Konko",
        summary="Chat completions",
        description=f"OpenAI's chat completions as Konko serves them: their clients work unmodified.\n\n{LISTS}",
        body=ChatBody,
        examples={
            "one model": {
                "model": "local/ngram-5",
                "messages": [{"role": "user", "content": "What does the return statement do?"}],
                "max_tokens": 20,
            },
            "two models, streamed": {
                "model": ["local/ngram-3", "local/ngram-5"],
                "messages": [{"role": "user", "content": "What does the return statement do?"}],
                "max_tokens": 20,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        },
        headers=HEADERS,
        answers=list_call_answers(ChatCompletionJson, Events(ChatChunkJson), "A choice for every model and sample."),
    ),
    Endpoint(
        "POST /openai/deployments/{model:.+}/chat/completions",
        create_deployment_chat_completion,
        id="deployment_chat_completions",
        tag="OpenAI and Konko",
        summary="Chat completions at Azure's path",
        description=AZURE,
        body=DeploymentChatBody,
        examples={
            "one model": {
                "messages": [{"role": "user", "content": "What does the return statement do?"}],
                "max_tokens": 20,
            },
        },
        headers=HEADERS,
        path_parameters=DEPLOYMENT,
        answers=list_call_answers(ChatCompletionJson, Events(ChatChunkJson), "A choice for every sample."),
    ),
    Endpoint(
        "POST /openai/deployments/{model:.+}/completions",
        create_deployment_completion,
        id="deployment_completions",
        tag="OpenAI and Konko",
        summary="Text completions at Azure's path",
        description=AZURE,
        body=DeploymentCompletionsBody,
        examples={"one model": {"prompt": "The return statement", "max_tokens": 20}},
        headers=HEADERS,
        path_parameters=DEPLOYMENT,
        answers=list_call_answers(TextCompletionJson, Events(TextChunkJson), "A choice for every prompt and sample."),
    ),
)
