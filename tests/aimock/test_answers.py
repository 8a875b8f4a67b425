"""Whole and streamed answers of every format that aimock speaks, over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fanout.core.messages import Message
from tests.aimock.mock import FORMATS, KEY, Aimock
from tests.support.provider_calls import build_call, collect_stream, open_session
from tests.support.server import serve

TEXT = "Hello from a mock: ☀ and 😀"
UNCOUNTED = {"ollama"}
"""Formats whose usage aimock leaves at 0."""
WORDS = {"gemini": "FUNCTION_CALL", "vertex": "FUNCTION_CALL"}
"""A finish reason that Google itself does not know: none is made of it."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", FORMATS)
async def test_an_answer_is_read(name: str, stream: bool, aimock: Aimock) -> None:
    """Text, finish reason, usage and the request's id; the connection is kept for the next."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        for _ in range(3):
            call = build_call(provider, "m-1")
            deltas, completion = await collect_stream(provider, call) if stream else ([], await provider.complete(call))
            (choice,) = completion.choices
            assert (choice.message.text, choice.finish_reason) == (TEXT, "stop")
            assert completion.request_id
            assert completion.usage
            if name not in UNCOUNTED:
                assert (completion.usage.input_tokens, completion.usage.output_tokens) == (11, 7)
            if stream:
                assert len(deltas) > 2
                assert "".join(delta.text for delta in deltas) == TEXT
        await aimock.wait_for_sockets(sockets=1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", FORMATS)
async def test_a_tool_call_is_read(name: str, stream: bool, aimock: Aimock) -> None:
    """In OpenAI's shape, whatever the format; its arguments come in pieces."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        call = build_call(provider, "m-1", messages=(Message("user", "the weather"),))
        completion = (await collect_stream(provider, call))[1] if stream else await provider.complete(call)
    (choice,) = completion.choices
    (made,) = choice.message.tool_calls
    assert (made["type"], made["function"]["name"]) == ("function", "weather")
    assert json.loads(made["function"]["arguments"]) == {"city": "Paris", "sky": "☀"}
    assert made["id"]
    assert (choice.finish_reason or choice.native_finish_reason) == WORDS.get(name, "tool_calls")


@pytest.mark.parametrize("name", FORMATS)
async def test_many_streams_are_read_at_once(name: str, aimock: Aimock) -> None:
    """Each is whole, and nobody's pieces are another's."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        answers = await asyncio.gather(*(collect_stream(provider, build_call(provider, f"m-{number}")) for number in range(20)))
    assert {completion.choices[0].message.text for _, completion in answers} == {TEXT}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_one_prompt_is_answered_in_all_formats_at_once(stream: bool, aimock: Aimock, tmp_path: Path) -> None:
    """Through the real server; beside them one whose connection drops, one that is limited, one that talks nonsense."""
    broken = {"disconnect": "network", "ratelimit": "rate_limit", "malformed": "malformed", "drop": "server"}
    rows = {name: aimock.build_row(name) for name in FORMATS}
    rows |= {
        fault: {**aimock.build_row("openai", **{f"x-aimock-chaos-{fault}": "1"}), "retries": {"attempts": 1}}
        for fault in broken
    }
    config = tmp_path / "providers.json"
    config.write_text(json.dumps({"extends": False, "providers": rows}))
    models = [f"{name}/m-1" for name in rows]
    async with serve(config, MOCK_KEY=KEY) as server:
        body = {"model": models, "prompt": "Hello", "stream": stream}
        async with server.session.post("/v1/completion", json=body) as response:
            assert response.status == 200
            choices = read_choices(await response.text()) if stream else (await response.json())["choices"]
        assert server.in_flight == 0
    assert [choice["model"] for choice in choices] == models
    assert [choice["text"] for choice in choices[: len(FORMATS)]] == [TEXT] * len(FORMATS)
    assert [choice["error"]["kind"] for choice in choices[len(FORMATS) :]] == list(broken.values())


def read_choices(stream: str) -> list[dict[str, Any]]:
    """The choices of a stream, each put together, in their order."""
    made: dict[int, dict[str, Any]] = {}
    for line in stream.splitlines():
        if line.startswith("data: {"):
            for piece in json.loads(line[6:])["choices"]:
                choice = made.setdefault(piece["index"], {"model": piece["model"], "text": "", "error": None})
                choice["text"] += piece["text"]
                choice["error"] = piece.get("error") or choice["error"]
    return [made[index] for index in sorted(made)]
