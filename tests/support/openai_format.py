"""Answers of OpenAI's format, and an adapter that reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fanout.core.errors import ProviderError
from fanout.core.schema import Completion, Failure
from fanout.providers.openai.adapter import OpenAi
from tests.support.provider_calls import build_adapter, build_call, decode, replay_stream


def build_openai(base_url: str | None = "http://127.0.0.1:9/v1", **settings: Any) -> OpenAi:
    """Return a provider named `up`; see `build_adapter`."""
    return build_adapter(OpenAi, base_url, **settings)


UP = build_openai()

CALL = build_call(UP)


def encode_chunks(*items: Any, done: bool = True) -> bytes:
    """Return server-sent events with these JSON values."""
    lines = [f"data: {json.dumps(item)}\n\n" for item in items]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def decode_answer(body: Any, *, status: int = 200, **headers: str) -> Completion:
    """Return the answer of a whole body; see `decode`."""
    return decode(UP, CALL, status, body, **headers)


def decode_failure(body: Any, *, status: int = 200, **headers: str) -> Failure:
    """Return the failure of such a body."""
    with pytest.raises(ProviderError) as caught:
        decode_answer(body, status=status, **headers)
    return caught.value.failure


def replay_failure(*pieces: bytes) -> Failure:
    """Return the failure of a stream of these pieces."""
    with pytest.raises(ProviderError) as caught:
        replay_stream(UP, CALL, pieces)
    return caught.value.failure


def build_choice(text: Any = "Hi", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """Return a choice of a whole chat answer."""
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}


def build_chunk(text: Any = None, finish: Any = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    """Return a chunk of a streamed chat answer."""
    delta = delta if text is None else {"content": text, **delta}
    return {"id": "c1", "model": "m-1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
