"""A server before scripted and canned upstreams for the tests of the dialects, and requests to it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.builders.settings import write_providers_file
from tests.support.client import Reply
from tests.support.server import UP_KEY, Server, serve
from tests.support.upstream.canned import serve_answers

COMPLETIONS, CHAT, SCALE = "/v1/completions", "/v1/chat/completions", "/v4/completions"
HI = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def serve_hosts(
    url: str, folder: Path, *, more: Mapping[str, Any] | None = None, **environ: str
) -> AsyncGenerator[Server]:
    """Serve with one upstream under several names, each a host of another kind.

    `up` chats and `text` completes; `wide` also takes what Konko's hosts do; `narrow` takes only a seed, `poor` nothing.
    """
    common = {"adapter": "openai", "base_url": url, "timeout_s": 2, "retries": {"attempts": 2, "max_delay_s": 0.02}}
    narrow = [name for name in ALL_PARAMETERS if name != "seed"]
    rows = {
        "text": {**common, "default_kind": "text"},
        "wide": {
            **common,
            "default_kind": "text",
            "parameters": {"rename": {"top_k": "top_k", "repetition_penalty": "repetition_penalty"}},
        },
        "narrow": {**common, "parameters": {"drop": narrow}},
        "poor": {**common, "default_kind": "text", "parameters": {"drop": ALL_PARAMETERS}},
        **((more or {}).get("providers") or {}),
    }
    sections = {**(more or {}), "providers": rows}
    config = write_providers_file(
        url, folder, more=sections, api_key_env="UP_KEY", **{k: v for k, v in common.items() if k[-1] == "s"}
    )
    async with serve(config, UP_KEY=UP_KEY, **environ) as server:
        yield server


ALL_PARAMETERS = (
    *("max_tokens", "temperature", "top_p", "top_k", "n", "best_of", "seed", "stop", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "logit_bias", "logprobs", "echo", "suffix", "user"),
)
"""Every sampling parameter."""


async def post(
    server: Server, path: str, body: Any = None, /, headers: Mapping[str, str] | None = None, **fields: Any
) -> Reply:
    """Send a request whose body is `fields`, or `body` if given."""
    async with server.session.post(path, json=fields if body is None else body, headers=headers) as response:
        return Reply(response.status, response.headers, await response.read())


async def complete(server: Server, model: Any, prompt: Any = "hi", **fields: Any) -> Reply:
    return await post(server, COMPLETIONS, model=model, prompt=prompt, **fields)


async def chat(server: Server, model: Any, messages: Any = HI, **fields: Any) -> Reply:
    return await post(server, CHAT, model=model, messages=messages, **fields)


async def complete_scale(server: Server, model: Any, prompt: Any = "hi", path: str = SCALE, **fields: Any) -> Reply:
    return await post(server, path, model=model, prompt=prompt, **fields)


@dataclass(slots=True)
class CannedUpstream:
    """An upstream that answers as the test determines: a body to a whole request, chunks to a streamed one."""

    whole: Mapping[str, Any] = field(default_factory=dict)
    chunks: Sequence[Mapping[str, Any]] = ()
    requests: list[Any] = field(default_factory=list)
    """Bodies of the requests it received."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        if not body.get("stream"):
            return web.json_response(self.whole)
        lines = [f"data: {json.dumps({'id': 'c', 'model': 'm', **chunk})}\n\n" for chunk in self.chunks]
        return web.Response(text="".join([*lines, "data: [DONE]\n\n"]), content_type="text/event-stream")


@asynccontextmanager
async def serve_canned(folder: Path, upstream: CannedUpstream) -> AsyncGenerator[Server]:
    """Serve before a canned upstream."""
    async with serve_answers(upstream.answer) as canned, serve_hosts(f"{canned.url}/v1", folder) as server:
        yield server


def build_delta(finish: str | None = None, index: int = 0, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk of a canned chat stream."""
    return {"choices": [{"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": finish}]}


def get_text(pieces: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of one choice's pieces."""
    return "".join(piece["text"] if "text" in piece else piece["delta"].get("content") or "" for piece in pieces)
