"""A host of models that speaks several vendors' formats at once, knows one key and two models, and remembers its keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-good-0123456789"
MODELS = ("small-1b", "big-70b", "text-embedding-x")
OPENAI_USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}


@dataclass(slots=True)
class Host:
    """What it does: `rows` are entries of providers.json that lead to it, one for each format."""

    url: str = ""
    streamed_usage: bool = True
    lists: bool = True
    thinks: bool = False
    """Comes to no word within 100 tokens."""
    owner: str = "someone"
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """Path and body of every request."""

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {
            "open": {"adapter": "openai", "base_url": f"{self.url}/v1", "api_key_env": "OPEN_KEY"},
            "anth": {"adapter": "anthropic", "base_url": self.url, "api_key_env": "ANTH_KEY"},
            "gemi": {"adapter": "gemini", "base_url": self.url, "api_key_env": "GEMI_KEY"},
            "olla": {"adapter": "ollama", "base_url": self.url, "api_key_env": "OLLA_KEY", "key_optional": True},
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body))
        given = [request.headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key")]
        path = request.path
        if path == "/api/tags":
            return web.json_response({"models": [{"name": name} for name in MODELS]})
        if path != "/api/chat" and f"Bearer {KEY}" not in given and KEY not in given:
            return _refused(path)
        if path == "/v1/models" and self.lists:
            return web.json_response({"data": [{"id": name, "owned_by": self.owner} for name in MODELS]})
        model = path.rpartition("/")[2].partition(":")[0] if path.startswith("/v1beta/") else body.get("model")
        if model not in MODELS:
            return _unknown(path, model)
        if path.startswith("/v1beta/"):
            return await self._gemini(request, stream="streamGenerateContent" in path)
        if path == "/v1/messages":
            return await self._anthropic(request, body)
        return await (self._ollama(request, body) if path == "/api/chat" else self._openai(request, body))

    async def _openai(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        text, end = ("", "length") if self.thinks and body["max_tokens"] < 100 else ("OK", "stop")
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
            return web.json_response({"model": body["model"], "choices": [choice], "usage": OPENAI_USAGE})
        events: list[Any] = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
        if self.streamed_usage:
            events.append({"choices": [], "usage": OPENAI_USAGE})
        return await _sent(request, [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"])

    async def _anthropic(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        message = {"type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
        usage = {"input_tokens": 9, "output_tokens": 1}
        if not body.get("stream"):
            return web.json_response({**message, "content": [{"type": "text", "text": "OK"}], "usage": usage})
        start = {**message, "content": [], "stop_reason": None}
        events: list[Any] = [
            {"type": "message_start", "message": {**start, "usage": usage} if self.streamed_usage else start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "OK"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}} | ({"usage": usage} if self.streamed_usage else {}),
            {"type": "message_stop"},
        ]
        return await _sent(request, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])

    async def _gemini(self, request: web.Request, *, stream: bool) -> web.StreamResponse:
        answer = {"candidates": [{"content": {"role": "model", "parts": [{"text": "OK"}]}, "finishReason": "STOP", "index": 0}]}
        counted = {**answer, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 10}}
        if not stream:
            return web.json_response(counted)
        return await _sent(request, [f"data: {json.dumps(counted if self.streamed_usage else answer)}\r\n\r\n"])

    async def _ollama(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        piece = {"model": body["model"], "message": {"role": "assistant", "content": "OK"}, "done": False}
        end = {**piece, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 1}
        if not body.get("stream"):
            return web.json_response(end)
        last = {**end, "message": {"role": "assistant", "content": ""}}
        return await _sent(request, [f"{json.dumps(line)}\n" for line in (piece, last)], "application/x-ndjson")


def _refused(path: str) -> web.Response:
    if path.startswith("/v1beta/"):
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        error: Any = {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid.", "details": details}
        return web.json_response({"error": error}, status=400)
    if path == "/v1/messages":
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        return web.json_response({"type": "error", "error": error}, status=401)
    return web.json_response({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, status=401)


def _unknown(path: str, model: Any) -> web.Response:
    message = f"there is no {model}"
    error: Any = {"message": message, "code": "model_not_found"}
    if path.startswith("/v1beta/"):
        error = {"code": 404, "status": "NOT_FOUND", "message": message}
    elif path == "/v1/messages":
        return web.json_response({"type": "error", "error": {"type": "not_found_error", "message": message}}, status=404)
    return web.json_response({"error": error}, status=404)


async def _sent(request: web.Request, pieces: list[str], kind: str = "text/event-stream") -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece.encode())
    return response


@asynccontextmanager
async def hosting(**does: Any) -> AsyncIterator[Host]:
    """A host while its `async with` lasts."""
    host = Host(**does)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield host
    finally:
        await runner.cleanup()
