"""`POST /v1/completions`: OpenAI's text completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from aiohttp import web

from fanout.rendering.openai.text import TEXT, TextChunkJson, TextCompletionJson
from fanout.requests.openai.text import CompletionsBody
from fanout.server.dialects.openai.respond import HEADERS, LISTS, respond
from fanout.server.openapi.answers import describe_call
from fanout.server.openapi.endpoint import Endpoint, Events
from fanout.server.request_body import read_body


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/completions`."""
    return await respond(request, await read_body(request, CompletionsBody), TEXT)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/completions",
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
        answers=describe_call(TextCompletionJson, Events(TextChunkJson), "A choice for every prompt, model and sample."),
    ),
)
