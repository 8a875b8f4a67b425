"""Calls to hand to an adapter of OpenAI's format, and what its answers are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Credential, Delta, Failure, Query, Target
from fanout.providers.openai.adapter import OpenAi

KEY = "sk-test-0123456789abcdef"


def openai_at(
    base_url: str | None = "http://127.0.0.1:9/v1",
    *,
    session: Any = None,
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
    max_answer_bytes: int = 2**24,
    **row: Any,
) -> OpenAi:
    """A provider named `up`; without a session only its pure part works."""
    return OpenAi(
        ProviderSettings(
            name="up",
            row=ProviderRow(adapter="openai", **row),
            source="test",
            base_url=base_url,
            key=SecretStr(key) if key else None,
            headers={name: SecretStr(value) for name, value in (headers or {}).items()},
            missing=(),
            missing_key=None,
            max_answer_bytes=max_answer_bytes,
        ),
        session,
    )


def calling(
    provider: OpenAi,
    model: str = "m",
    *,
    prompt: str | None = None,
    messages: tuple[Message, ...] | None = None,
    passthrough: dict[str, Any] | None = None,
    own_key: str | None = None,
    **sampling: Any,
) -> Call:
    """A call as `plan` would make it: chat, unless there is a `prompt`."""
    if prompt is None and messages is None:
        messages = (Message("user", "Hello"),)
    query = Query(messages=messages, prompt=prompt, sampling=Sampling(**sampling), passthrough=passthrough or {})
    target = Target(label=model, name=model, provider="up", model=model)
    credential = Credential(SecretStr(own_key), "digest") if own_key else None
    return Call(7, 0, 0, target, query, fitted=provider.fit(target, query), credential=credential)


def sent(provider: OpenAi, call: Call, *, stream: bool = False) -> dict[str, Any]:
    """The JSON object that a call sends."""
    body: dict[str, Any] = json.loads(provider.encode(call, stream=stream).body)
    return body


def replayed(
    provider: OpenAi, call: Call, pieces: list[bytes], headers: Mapping[str, str] | None = None
) -> tuple[list[Delta], Completion]:
    """What a stream that arrives in these pieces gives."""
    events = provider.open_reader(call, CIMultiDict(headers or {}))
    deltas: list[Delta] = []
    for piece in pieces:
        if events.is_ended:
            break
        deltas += events.feed(piece)
    deltas += events.flush()
    return deltas, events.close()


def chunks(*items: Any, done: bool = True) -> bytes:
    """Server-sent events with these JSON values."""
    lines = [f"data: {json.dumps(item)}\n\n" for item in items]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def answered(body: Any, *, status: int = 200, **headers: str) -> Completion:
    """What a whole body says; `body` is JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return UP.decode(CALL, status, CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), data)


def refused(body: Any, *, status: int = 200, **headers: str) -> Failure:
    """How such a body fails."""
    with pytest.raises(ProviderError) as caught:
        answered(body, status=status, **headers)
    return caught.value.failure


def broken(*pieces: bytes) -> Failure:
    """How a stream of these pieces fails."""
    with pytest.raises(ProviderError) as caught:
        replayed(UP, CALL, list(pieces))
    return caught.value.failure


def saying(text: Any = "Hi", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """A choice of a whole chat answer."""
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}


def piece(text: Any = None, finish: Any = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    """A chunk of a streamed chat answer."""
    delta = delta if text is None else {"content": text, **delta}
    return {"id": "c1", "model": "m-1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


async def gathered(provider: OpenAi, call: Call) -> tuple[list[Delta], Completion]:
    """A streamed call over the network, to its end."""
    pieces = [piece async for piece in provider.stream(call)]
    completion = pieces.pop()
    assert isinstance(completion, Completion)
    return [piece for piece in pieces if isinstance(piece, Delta)], completion


def open_session() -> aiohttp.ClientSession:
    """A session as the dispatcher opens it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


UP = openai_at()
"""A provider whose pure part the tests use, and a call of it."""
CALL = calling(UP)
