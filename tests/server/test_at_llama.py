"""Our server before a real llama.cpp server: whole and streamed answers, and calls that are abandoned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.llama.process import ENDLESS, LONG_TOKENS, Llama
from tests.support.server import Server, serve

TINY, TEXT = "up/tiny", "tiny-text"
ON: dict[str, Any] = {"logit_bias": ENDLESS}
LONG: dict[str, Any] = {"max_tokens": LONG_TOKENS, **ON}


@asynccontextmanager
async def serve_llama(llama: Llama, folder: Path, key: str | None = None) -> AsyncGenerator[Server]:
    """Run our server before the llama.cpp server."""
    models = {"tiny-text": {"provider": "up", "id": "tiny", "kind": "text"}}
    config = write_providers_file(llama.url, folder, api_key_env="UP_KEY", more={"models": models})
    async with serve(config, UP_KEY=key or llama.key) as server:
        yield server


@pytest.fixture
async def server(llama: Llama, tmp_path: Path) -> AsyncIterator[Server]:
    """Our server before the llama.cpp server; `up/tiny` chats, `tiny-text` completes."""
    async with serve_llama(llama, tmp_path) as running:
        yield running


async def complete(server: Server, *models: str, **more: Any) -> tuple[int, Any]:
    async with server.session.post("/v1/completion", json={"prompt": "the people", "model": models, **ON, **more}) as got:
        return got.status, await got.json()


async def stream_chunks(server: Server, *models: str, **more: Any) -> list[dict[str, Any]]:
    body = {"prompt": "the people", "model": models, "stream": True, **ON, **more}
    async with server.session.post("/v1/completion", json=body) as got:
        assert got.status == 200, await got.text()
        lines = [line async for line in got.content if line.startswith(b"data: ")]
    assert lines.pop() == b"data: [DONE]\n"
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("model", [TINY, TEXT])
async def test_a_whole_answer_has_text_usage_and_time(server: Server, model: str) -> None:
    status, answer = await complete(server, model, max_tokens=8)

    (choice,) = answer["choices"]
    assert (status, choice["error"], choice["upstream_model"]) == (200, None, "tiny")
    assert choice["text"]
    assert (choice["finish_reason"], choice["usage"]["completion_tokens"]) == ("length", 8)
    assert choice["usage"]["prompt_tokens"] > 0
    assert choice["usage"]["total_tokens"] == answer["usage"]["total_tokens"]
    assert choice["timing"]["tokens_per_second"] > 0


@pytest.mark.parametrize("model", [TINY, TEXT])
async def test_a_stream_equals_the_whole_answer(server: Server, model: str) -> None:
    fields: dict[str, Any] = {"max_tokens": 16, "seed": 7, "temperature": 0.8}
    _, whole = await complete(server, model, **fields)
    pieces = [choice for chunk in await stream_chunks(server, model, **fields) for choice in chunk["choices"]]

    assert len(pieces) > 3
    assert "".join(piece["text"] for piece in pieces) == whole["choices"][0]["text"]
    for name in ("finish_reason", "provider", "upstream_model", "error"):
        assert pieces[-1][name] == whole["choices"][0][name]
    assert pieces[-1]["usage"]["completion_tokens"] == whole["choices"][0]["usage"]["completion_tokens"]
    assert 0 < pieces[-1]["timing"]["ttft_ms"] <= pieces[-1]["timing"]["total_ms"]


@pytest.mark.parametrize("model", [TINY, TEXT])
async def test_logprobs_belong_to_the_text(server: Server, model: str) -> None:
    """The four legacy arrays, whole and streamed alike."""
    fields: dict[str, Any] = {"max_tokens": 6, "seed": 3, "logprobs": 2}
    _, answer = await complete(server, model, **fields)
    streamed = [
        choice for chunk in await stream_chunks(server, model, **fields) for choice in chunk["choices"] if choice["logprobs"]
    ]

    choice = answer["choices"][0]
    found = choice["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["top_logprobs"]) == len(found["text_offset"])
    assert len(found["tokens"]) == choice["usage"]["completion_tokens"]
    assert "".join(found["tokens"]).strip() == choice["text"].strip()
    assert all(value <= 0 for value in found["token_logprobs"])
    assert all(0 < len(top) <= 2 for top in found["top_logprobs"])
    for name in ("tokens", "text_offset"):
        assert [item for piece in streamed for item in piece["logprobs"][name]] == found[name]


async def test_samples_are_calls_of_their_own(server: Server) -> None:
    _, answer = await complete(server, TINY, n=3, max_tokens=16, temperature=1.0, seed=11)

    choices = answer["choices"]
    assert [(choice["index"], choice["entry"], choice["sample"]) for choice in choices] == [(0, 0, 0), (1, 0, 1), (2, 0, 2)]
    assert len({choice["text"] for choice in choices}) == 3
    assert all(choice["usage"]["completion_tokens"] > 0 for choice in choices)


async def test_the_same_seed_repeats_an_answer_and_another_does_not(server: Server) -> None:
    async def read_text(seed: int) -> str:
        _, answer = await complete(server, TINY, seed=seed, max_tokens=16, temperature=1.0)
        return str(answer["choices"][0]["text"])

    assert await read_text(5) == await read_text(5) != await read_text(6)


async def test_a_wrong_key_is_reported_in_our_words(llama: Llama, tmp_path: Path, log_lines: list[str]) -> None:
    async with serve_llama(llama, tmp_path, key="sk-wrong-0123456789") as server:
        status, answer = await complete(server, TINY)

    (detail,) = answer["error"]["details"]
    assert (status, detail["kind"], detail["code"]) == (502, "auth", "invalid_api_key")
    assert detail["message"].startswith("`up` refused the API key (HTTP 401)")
    assert not any("sk-wrong" in line for line in [json.dumps(answer), *log_lines])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_context_is_reported_in_the_upstreams_words(server: Server, stream: bool) -> None:
    status, answer = await complete(server, TINY, prompt="the " * 5000, stream=stream)

    (detail,) = answer["error"]["details"]
    assert (status, detail["kind"]) == (400, "bad_request")
    assert "context" in detail["message"]


async def test_a_client_who_leaves_frees_its_slots(llama: Llama, server: Server) -> None:
    async with llama.expect_release():
        request = asyncio.create_task(complete(server, TINY, TEXT, stream=True, **LONG))
        await llama.wait_until_busy(2)
        request.cancel()

    assert server.in_flight == 0


async def test_a_whole_answer_is_abandoned_when_its_client_leaves(llama: Llama, server: Server) -> None:
    """llama.cpp continues to the end of an answer that is not streamed; we hold nothing meanwhile."""
    request = asyncio.create_task(complete(server, TINY, **LONG | {"max_tokens": 1500}))
    await llama.wait_until_busy()
    request.cancel()
    while server.in_flight:
        await asyncio.sleep(0.01)
    still = await llama.count_busy_slots()
    await llama.wait_until_idle()

    assert still == 1


async def test_a_race_that_is_over_frees_the_slots_of_the_rest(llama: Llama, server: Server) -> None:
    models: list[Any] = [{"model": TINY, **LONG}, {"model": TEXT, "max_tokens": 20}]
    async with llama.expect_release():
        found = await stream_chunks(server, *models, return_when=1)

    ends = {choice["index"]: choice["error"] for chunk in found for choice in chunk["choices"] if "error" in choice}
    assert (ends[0]["code"], ends[1]) == ("cancelled", None)
