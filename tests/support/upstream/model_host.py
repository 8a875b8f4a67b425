"""A host of models that speaks several vendors' formats, accepts one key, serves three models and records its requests."""

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
class ModelHost:
    """A host; its `rows` are entries for providers.json, one for each format."""

    url: str = ""
    has_streamed_usage: bool = True
    is_listing: bool = True
    """Serves a list of its models."""
    is_thinking: bool = False
    """Answers nothing within 100 tokens."""
    owner: str = "someone"
    requests: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
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
        self.requests.append((request.path, body))
        keys = [request.headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key")]
        path = request.path
        if path == "/api/tags":
            return web.json_response({"models": [{"name": name} for name in MODELS]})
        if path != "/api/chat" and f"Bearer {KEY}" not in keys and KEY not in keys:
            return _refuse_key(path)
        if path == "/v1/models" and self.is_listing:
            return web.json_response({"data": [{"id": name, "owned_by": self.owner} for name in MODELS]})
        model = path.rpartition("/")[2].partition(":")[0] if path.startswith("/v1beta/") else body.get("model")
        if model not in MODELS:
            return _refuse_model(path, model)
        if path.startswith("/v1beta/"):
            return await self._answer_gemini(request, stream="streamGenerateContent" in path)
        if path == "/v1/messages":
            return await self._answer_anthropic(request, body)
        return await (self._answer_ollama(request, body) if path == "/api/chat" else self._answer_openai(request, body))

    async def _answer_openai(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        text, end = ("", "length") if self.is_thinking and body["max_tokens"] < 100 else ("OK", "stop")
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
            return web.json_response({"model": body["model"], "choices": [choice], "usage": OPENAI_USAGE})
        events: list[Any] = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
        if self.has_streamed_usage:
            events.append({"choices": [], "usage": OPENAI_USAGE})
        return await _send_pieces(request, [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"])

    async def _answer_anthropic(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        message = {"type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
        usage = {"input_tokens": 9, "output_tokens": 1}
        if not body.get("stream"):
            return web.json_response({**message, "content": [{"type": "text", "text": "OK"}], "usage": usage})
        start = {**message, "content": [], "stop_reason": None}
        events: list[Any] = [
            {"type": "message_start", "message": {**start, "usage": usage} if self.has_streamed_usage else start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "OK"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
            | ({"usage": usage} if self.has_streamed_usage else {}),
            {"type": "message_stop"},
        ]
        return await _send_pieces(request, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])

    async def _answer_gemini(self, request: web.Request, *, stream: bool) -> web.StreamResponse:
        answer = {"candidates": [{"content": {"role": "model", "parts": [{"text": "OK"}]}, "finishReason": "STOP", "index": 0}]}
        counted = {**answer, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 10}}
        if not stream:
            return web.json_response(counted)
        return await _send_pieces(request, [f"data: {json.dumps(counted if self.has_streamed_usage else answer)}\r\n\r\n"])

    async def _answer_ollama(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        piece = {"model": body["model"], "message": {"role": "assistant", "content": "OK"}, "done": False}
        end = {**piece, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 1}
        if not body.get("stream"):
            return web.json_response(end)
        last = {**end, "message": {"role": "assistant", "content": ""}}
        return await _send_pieces(request, [f"{json.dumps(line)}\n" for line in (piece, last)], "application/x-ndjson")


def _refuse_key(path: str) -> web.Response:
    if path.startswith("/v1beta/"):
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        error: Any = {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid.", "details": details}
        return web.json_response({"error": error}, status=400)
    if path == "/v1/messages":
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        return web.json_response({"type": "error", "error": error}, status=401)
    return web.json_response({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, status=401)


def _refuse_model(path: str, model: Any) -> web.Response:
    message = f"there is no {model}"
    error: Any = {"message": message, "code": "model_not_found"}
    if path.startswith("/v1beta/"):
        error = {"code": 404, "status": "NOT_FOUND", "message": message}
    elif path == "/v1/messages":
        return web.json_response({"type": "error", "error": {"type": "not_found_error", "message": message}}, status=404)
    return web.json_response({"error": error}, status=404)


async def _send_pieces(request: web.Request, pieces: list[str], kind: str = "text/event-stream") -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece.encode())
    return response


@asynccontextmanager
async def serve_model_host(**settings: Any) -> AsyncIterator[ModelHost]:
    """Serve a host on a free port."""
    host = ModelHost(**settings)
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
