"""The floor of a streaming server: the least that relaying several models' streams with aiohttp can cost.

usage: stream_floor.py PORT UPSTREAM_URL      POST /v1/completion {"model": ["a", "b"], "prompt": "...", "stream": true} -> SSE
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import floor
from aiohttp import web

OPENING = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


def tag_event(index: int, model: str, event: bytes) -> bytes:
    """Return an upstream event with its model added; nothing if it holds no choice."""
    chunk = json.loads(event[len(b"data: ") :])
    if not chunk["choices"]:
        return b""
    choice = chunk["choices"][0]
    text, finish_reason = choice["delta"].get("content", ""), choice["finish_reason"]
    ours = {"choices": [{"index": index, "model": model, "text": text, "finish_reason": finish_reason}]}
    return b"data: %b\n\n" % json.dumps(ours).encode()


async def relay(app: web.Application, index: int, model: str, prompt: str, out: web.StreamResponse) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
    rest = b""
    async with app[floor.SESSION].post(app[floor.UPSTREAM], data=body, headers=floor.HEADERS) as response:
        async for read in response.content.iter_any():
            *events, rest = (rest + read).split(b"\n\n")
            # One write for each read: a write costs more than an event.
            await out.write(b"".join(tag_event(index, model, event) for event in events if event != b"data: [DONE]"))


async def respond(request: web.Request) -> web.StreamResponse:
    body: dict[str, Any] = json.loads(await request.read())
    if not body.get("stream"):
        return await floor.respond_whole(request.app, body)
    out = web.StreamResponse(headers=OPENING)
    await out.prepare(request)
    models = floor.list_models(body)
    await asyncio.gather(*(relay(request.app, index, model, body["prompt"], out) for index, model in enumerate(models)))
    await out.write(b"data: [DONE]\n\n")
    await out.write_eof()
    return out


if __name__ == "__main__":
    floor.serve(respond)
