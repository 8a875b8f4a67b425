"""`POST /v1/chat/completions`: OpenAI's chat completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from aiohttp import web

from fanout.rendering.openai.chat import CHAT, ChatChunkJson, ChatCompletionJson
from fanout.requests.openai.chat import ChatBody
from fanout.server.dialects.openai.respond import HEADERS, LISTS, respond
from fanout.server.openapi.answers import describe_call
from fanout.server.openapi.endpoint import Endpoint, Events
from fanout.server.request_body import read_body


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/chat/completions`."""
    return await respond(request, await read_body(request, ChatBody), CHAT)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
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
        answers=describe_call(ChatCompletionJson, Events(ChatChunkJson), "A choice for every model and sample."),
    ),
)
