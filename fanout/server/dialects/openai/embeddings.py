"""`POST /v1/embeddings`, OpenAI's, with a list-valued `model`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.core.merge import has_answer
from fanout.core.schema import Call, Outcome
from fanout.core.threads import run_in_thread
from fanout.rendering.errors import render_all_failed
from fanout.rendering.openai.answers import OpenAiHeadJson
from fanout.rendering.openai.embeddings import EmbeddingsJson, EncodingFormat, render_embeddings
from fanout.requests.bodies import check_limits
from fanout.requests.openai.embeddings import EmbeddingsBody
from fanout.server.dialects.openai.completions import HEADERS, join_labels
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.openapi.endpoint import Endpoint, list_call_answers
from fanout.server.request_body import read_body, work_on_body
from fanout.server.responses import error_response


async def create_embeddings(request: web.Request) -> web.Response:
    """Serve `POST /v1/embeddings`.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    body, now, began = await read_body(request, EmbeddingsBody), time.time(), time.monotonic()
    dispatcher = request.app[DISPATCHER]
    environment = dispatcher.settings.environment
    calls = await work_on_body(request, _plan, request, body)
    check_limits(body.timeout_s, body.return_when, calls, environment.max_timeout_s)
    head: OpenAiHeadJson = {"id": str(uuid.uuid4()), "created": int(now), "model": join_labels(calls)}
    # Before any call, so that a request whose client leaves is in the history too.
    history.begin_comparison(request, head["id"], now, stream=False)
    outcomes = await dispatcher.run(calls, deadline_s=body.timeout_s or environment.timeout_s, return_when=body.return_when)
    if not has_answer(outcomes):
        return error_response(request, render_all_failed(outcomes))
    # In a thread: a thousand vectors are millions of numbers.
    data = await run_in_thread("answers", _write, outcomes, head, time.monotonic() - began, body.encoding_format or "float")
    return web.Response(body=data, content_type="application/json")


def _plan(request: web.Request, body: EmbeddingsBody) -> Sequence[Call]:
    credentials, account_id = auth.find_caller_credentials(request), auth.choose_account(request)
    return request.app[DISPATCHER].plan(body.to_request(credentials, account_id))


def _write(outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float, encoding_format: EncodingFormat) -> bytes:
    return encode_json(render_embeddings(outcomes, head, total_s, encoding_format))


ENDPOINTS = (
    Endpoint(
        "POST /v1/embeddings",
        create_embeddings,
        id="embeddings",
        tag="OpenAI and Konko",
        summary="Embeddings",
        description="OpenAI's embeddings: their clients work unmodified. `model` may be a list: then `data` has the vectors of "
        "every model, and `choices` the usage, time, cost or error of each. Providers of OpenAI's format and Azure are asked; "
        "the embedded models answer with small vectors that count words: toys, the same for the same text everywhere.",
        body=EmbeddingsBody,
        examples={
            "one model": {"model": "local/ngram-5", "input": "The return statement"},
            "two models, two texts": {
                "model": ["local/ngram-5", {"model": "local/ngram-5", "label": "short", "dimensions": 8}],
                "input": ["The return statement", "A class definition"],
            },
        },
        headers=HEADERS,
        answers=list_call_answers(EmbeddingsJson, None, "A vector for every model and text."),
    ),
)
