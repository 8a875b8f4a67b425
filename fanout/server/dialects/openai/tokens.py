"""`POST /v1/tokenize`, vLLM's `/tokenize`, with a list-valued `model`."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.core.schema import Call, Outcome
from fanout.rendering.openai.answers import OpenAiHeadJson
from fanout.rendering.openai.tokens import TokenizeJson, render_tokens
from fanout.requests.openai.tokens import TokenizeBody
from fanout.server.dialects.openai.completions import HEADERS
from fanout.server.dialects.openai.tasks import run_task
from fanout.server.lifecycle import DISPATCHER
from fanout.server.openapi.endpoint import Endpoint, list_call_answers
from fanout.server.request_body import read_body


async def tokenize(request: web.Request) -> web.Response:
    """Serve `POST /v1/tokenize`.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    body = await read_body(request, TokenizeBody)
    catalogue = request.app[DISPATCHER].catalogue

    def find_context(call: Call) -> int | None:
        model = catalogue.find(call.target.name)
        return model.row.max_context_length if model and model.row else None

    def write(outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float) -> bytes:
        return encode_json(render_tokens(outcomes, head, find_context))

    return await run_task(request, body, write)


ENDPOINTS = tuple(
    Endpoint(
        f"POST {path}",
        tokenize,
        id=id_,
        tag="OpenAI and Konko",
        summary=summary,
        description="The tokens of a prompt, without an answer to it: vLLM's clients work unmodified. `model` may be a list: "
        "then `choices` has the count, the ids if its provider tells them, or the error of each. The embedded models and "
        "providers that have such an endpoint answer: Anthropic, Google, Bedrock and OpenAI count what a model would read, "
        "with what their formats put around a text; vLLM, llama.cpp, TGI, Cohere and xAI tell the ids.",
        body=TokenizeBody,
        examples={
            "one model": {"model": "local/ngram-5", "prompt": "The return statement", "return_token_strs": True},
            "two models, a conversation": {
                "model": ["local/ngram-3", "local/ngram-5"],
                "messages": [{"role": "user", "content": "The return statement"}],
            },
        },
        headers=HEADERS,
        answers=list_call_answers(TokenizeJson, None, "The tokens, for every model."),
    )
    for path, id_, summary in (
        ("/v1/tokenize", "tokenize", "Tokens of a prompt"),
        ("/tokenize", "tokenize_as_vllm", "Tokens of a prompt at vLLM's path"),
    )
)
