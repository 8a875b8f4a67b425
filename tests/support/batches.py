"""Requests that upload files, create batches and jobs, and wait for their ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.builders.settings import write_providers_file
from tests.support.upstream.server import Upstream

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FINAL_STATES = ("completed", "failed", "cancelled", "expired", "done", "stopped")
PATIENCE_S = 30


def write_config(upstream: Upstream, folder: Path) -> Path:
    """Write a providers.json whose models are scripts; a call is tried twice, with next to no wait between."""
    price = {"input_usd_per_mtok": 1e3, "output_usd_per_mtok": 1e4}
    more = {"models": {"priced": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    return write_providers_file(upstream.url, folder, more=more, timeout_s=30, retries={"attempts": 2, "max_delay_s": 0.01})


async def read_answer(request: Any) -> tuple[int, Any]:
    """Return the status and JSON of the answer to a request that is not yet sent, such as `session.get(…)`."""
    async with request as response:
        return response.status, await response.json()


def build_form(content: bytes, name: str = "in.jsonl", **fields: str) -> aiohttp.FormData:
    """Return the form that uploads a file."""
    form = aiohttp.FormData({"purpose": "batch", **fields}, quote_fields=False)
    form.add_field("file", content, filename=name, content_type="application/octet-stream")
    return form


async def upload_file(session: aiohttp.ClientSession, content: bytes, name: str = "in.jsonl", **fields: str) -> str:
    """Upload a file and return its id."""
    status, answer = await read_answer(session.post("/v1/files", data=build_form(content, name, **fields)))
    assert status == 200, answer
    return str(answer["id"])


def encode_lines(*lines: Mapping[str, Any]) -> bytes:
    """Return a JSON Lines file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def build_line(custom_id: str, model: Any, url: str = CHAT, **body: Any) -> dict[str, Any]:
    """Return a line of a batch's input."""
    prompt = {"messages": [{"role": "user", "content": custom_id}]} if url == CHAT else {"prompt": custom_id}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": model, **prompt, **body}}


async def create_batch(session: aiohttp.ClientSession, *requests: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Create a batch of these lines."""
    body = {
        "input_file_id": await upload_file(session, encode_lines(*requests)),
        "endpoint": CHAT,
        "completion_window": "24h",
        **fields,
    }
    status, answer = await read_answer(session.post("/v1/batches", json=body))
    assert status == 200, answer
    created: dict[str, Any] = answer
    return created


async def create_job(session: aiohttp.ClientSession, prompts: Iterable[str], models: Any, **fields: Any) -> dict[str, Any]:
    """Create a job."""
    body = {"items": [{"prompt": prompt} for prompt in prompts], "models": models, **fields}
    status, answer = await read_answer(session.post("/v1/jobs", json=body))
    assert status == 201, answer
    created: dict[str, Any] = answer
    return created


async def wait_for_state(session: aiohttp.ClientSession, path: str, *states: str) -> dict[str, Any]:
    """Wait until a batch or a job is in one of these states, by default any final one, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        status, answer = await read_answer(session.get(path))
        assert status == 200, answer
        if answer.get("state", answer.get("status")) in (states or FINAL_STATES):
            found: dict[str, Any] = answer
            return found
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)


async def read_lines(session: aiohttp.ClientSession, file: str) -> list[dict[str, Any]]:
    """Return the lines of a file."""
    async with session.get(f"/v1/files/{file}/content") as response:
        assert response.status == 200
        return [json.loads(line) for line in (await response.read()).splitlines()]
