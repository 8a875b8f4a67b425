"""How tests upload files, make batches and jobs, and wait for their ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.upstreams import Upstream, providers_file

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENDED = ("completed", "failed", "cancelled", "expired", "done", "stopped")
PATIENCE_S = 30


def config_of(upstream: Upstream, folder: Path) -> Path:
    """A providers.json whose models are scripts; two tries of a call, with next to no wait between them."""
    price = {"input_usd_per_mtok": 1e3, "output_usd_per_mtok": 1e4}
    more = {"models": {"priced": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    return providers_file(upstream.url, folder, more=more, timeout_s=30, retries={"attempts": 2, "max_delay_s": 0.01})


async def told(asked: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with asked as response:
        return response.status, await response.json()


def form(content: bytes, name: str = "in.jsonl", **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData({"purpose": "batch", **fields}, quote_fields=False)
    made.add_field("file", content, filename=name, content_type="application/octet-stream")
    return made


async def upload(session: aiohttp.ClientSession, content: bytes, name: str = "in.jsonl", **fields: str) -> str:
    """The id of an uploaded file."""
    status, answer = await told(session.post("/v1/files", data=form(content, name, **fields)))
    assert status == 200, answer
    return str(answer["id"])


def lines(*lines: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def request(custom_id: str, model: Any, url: str = CHAT, **body: Any) -> dict[str, Any]:
    """A line of a batch's input."""
    question = {"messages": [{"role": "user", "content": custom_id}]} if url == CHAT else {"prompt": custom_id}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": model, **question, **body}}


async def batch(session: aiohttp.ClientSession, *requests: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """A new batch of these lines."""
    asked = {"input_file_id": await upload(session, lines(*requests)), "endpoint": CHAT, "completion_window": "24h", **given}
    status, answer = await told(session.post("/v1/batches", json=asked))
    assert status == 200, answer
    made: dict[str, Any] = answer
    return made


async def job(session: aiohttp.ClientSession, prompts: Iterable[str], models: Any, **given: Any) -> dict[str, Any]:
    """A new job."""
    asked = {"items": [{"prompt": prompt} for prompt in prompts], "models": models, **given}
    status, answer = await told(session.post("/v1/jobs", json=asked))
    assert status == 201, answer
    made: dict[str, Any] = answer
    return made


async def until(session: aiohttp.ClientSession, path: str, *states: str) -> dict[str, Any]:
    """A batch or a job once it is in one of these states; by default in any that ends it."""
    until = time.monotonic() + PATIENCE_S
    while True:
        status, answer = await told(session.get(path))
        assert status == 200, answer
        if answer.get("state", answer.get("status")) in (states or ENDED):
            found: dict[str, Any] = answer
            return found
        assert time.monotonic() < until, answer
        await asyncio.sleep(0.05)


async def content(session: aiohttp.ClientSession, file: str) -> list[dict[str, Any]]:
    """The lines of a file."""
    async with session.get(f"/v1/files/{file}/content") as response:
        assert response.status == 200
        return [json.loads(line) for line in (await response.read()).splitlines()]
