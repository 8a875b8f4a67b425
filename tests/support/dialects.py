"""A server before scripted and canned upstreams for the tests of the dialects, and how they ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.server import UP_KEY, Server, serving
from tests.support.upstreams import providers_file

COMPLETIONS, CHAT, SCALE = "/v1/completions", "/v1/chat/completions", "/v4/completions"
HI = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def house(url: str, folder: Path, *, more: Mapping[str, Any] | None = None, **environ: str) -> AsyncGenerator[Server]:
    """A server with one upstream under several names, each a host of another kind.

    `up` chats, `text` completes; `wide` also takes what Konko's hosts do; `narrow` takes no more than a seed, `poor` nothing.
    """
    common = {"adapter": "openai", "base_url": url, "timeout_s": 2, "retries": {"attempts": 2, "max_delay_s": 0.02}}
    narrow = [name for name in ALL if name != "seed"]
    rows = {
        "text": {**common, "default_kind": "text"},
        "wide": {
            **common,
            "default_kind": "text",
            "parameters": {"rename": {"top_k": "top_k", "repetition_penalty": "repetition_penalty"}},
        },
        "narrow": {**common, "parameters": {"drop": narrow}},
        "poor": {**common, "default_kind": "text", "parameters": {"drop": ALL}},
        **((more or {}).get("providers") or {}),
    }
    sections = {**(more or {}), "providers": rows}
    config = providers_file(
        url, folder, more=sections, api_key_env="UP_KEY", **{k: v for k, v in common.items() if k[-1] == "s"}
    )
    async with serving(config, UP_KEY=UP_KEY, **environ) as server:
        yield server


ALL = (
    *("max_tokens", "temperature", "top_p", "top_k", "n", "best_of", "seed", "stop", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "logit_bias", "logprobs", "echo", "suffix", "user"),
)
"""Every sampling parameter."""


@dataclass(frozen=True, slots=True)
class Got:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def choices(self) -> list[Any]:
        choices: list[Any] = self.json["choices"]
        return choices

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def sent(self) -> list[Any]:
        """What was sent upstream, where it was an `echo` that answered: of every choice."""
        return [json.loads(choice["text"] if "text" in choice else choice["message"]["content"]) for choice in self.choices]

    @property
    def events(self) -> list[Any]:
        """The values of a stream's data lines, `[DONE]` among them; comments left out."""
        assert self.headers["Content-Type"].startswith("text/event-stream"), self.body
        *blocks, rest = self.body.decode().split("\n\n")
        assert rest == "", "every event ends with an empty line"
        lines = [line for block in blocks for line in block.split("\n") if line.startswith("data: ")]
        return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]

    def of(self, index: int) -> list[Any]:
        """The pieces of one choice of a stream, in order."""
        choices = [choice for event in self.events if event != "[DONE]" for choice in event["choices"]]
        return [choice for choice in choices if choice["index"] == index]


async def post(server: Server, path: str, body: Any = None, /, headers: Mapping[str, str] | None = None, **fields: Any) -> Got:
    """Asks; the body is `fields` or, where it is no such object, `body`."""
    async with server.session.post(path, json=fields if body is None else body, headers=headers) as response:
        return Got(response.status, response.headers, await response.read())


async def complete(server: Server, model: Any, prompt: Any = "hi", **fields: Any) -> Got:
    return await post(server, COMPLETIONS, model=model, prompt=prompt, **fields)


async def chat(server: Server, model: Any, messages: Any = HI, **fields: Any) -> Got:
    return await post(server, CHAT, model=model, messages=messages, **fields)


async def scale(server: Server, model: Any, prompt: Any = "hi", path: str = SCALE, **fields: Any) -> Got:
    return await post(server, path, model=model, prompt=prompt, **fields)


@dataclass(slots=True)
class Canned:
    """A real upstream that answers as the test says: a body to a whole request, chunks to one for a stream."""

    whole: Mapping[str, Any] = field(default_factory=dict)
    chunks: Sequence[Mapping[str, Any]] = ()
    requests: list[Any] = field(default_factory=list)
    """The bodies it was sent."""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        if not body.get("stream"):
            return web.json_response(self.whole)
        lines = [f"data: {json.dumps({'id': 'c', 'model': 'm', **chunk})}\n\n" for chunk in self.chunks]
        return web.Response(text="".join([*lines, "data: [DONE]\n\n"]), content_type="text/event-stream")


@asynccontextmanager
async def canned(folder: Path, upstream: Canned) -> AsyncGenerator[Server]:
    """A server before a canned upstream."""
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", upstream.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with house(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", folder) as server:
            yield server
    finally:
        await runner.cleanup()


def delta(finish: str | None = None, index: int = 0, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a canned chat stream."""
    return {"choices": [{"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": finish}]}


def get_text(pieces: Sequence[Mapping[str, Any]]) -> str:
    """The text of one choice's pieces."""
    return "".join(piece["text"] if "text" in piece else piece["delta"].get("content") or "" for piece in pieces)
