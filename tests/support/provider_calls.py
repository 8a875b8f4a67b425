"""Adapters without a server: calls to give them, and the answers they read from bytes."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDict
from pydantic import SecretStr

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Credential, Delta, Failure, Query, Target
from fanout.providers.transport.connection_errors import PARSER_LIMITS
from fanout.providers.transport.connector import UpstreamConnector
from fanout.providers.transport.departures import WatchedRequest
from fanout.providers.transport.http import HttpProvider

P = TypeVar("P", bound=HttpProvider)

KEY = "sk-test-0123456789abcdef"

StreamParts = tuple[list[Delta], Completion]
"""The pieces of a stream and the completion they add up to."""
StreamResult = Failure | StreamParts


def build_adapter(
    make: Callable[..., P],
    base_url: str | None = "http://127.0.0.1:9",
    *,
    session: Any = None,
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
    max_answer_bytes: int = 2**24,
    **row: Any,
) -> P:
    """Return a provider named `up` of one adapter's class; without a session only its pure part works."""
    settings = ProviderSettings(
        name="up",
        row=ProviderRow(adapter="any", **row),
        source="test",
        base_url=base_url,
        key=SecretStr(key) if key else None,
        headers={name: SecretStr(value) for name, value in (headers or {}).items()},
        missing=(),
        missing_key=None,
        max_answer_bytes=max_answer_bytes,
    )
    return make(settings, session)


def build_call(
    provider: HttpProvider,
    model: str = "m",
    *,
    prompt: str | None = None,
    messages: tuple[Message, ...] | None = None,
    passthrough: dict[str, Any] | None = None,
    own_key: str | None = None,
    **sampling: Any,
) -> Call:
    """Return a call as `plan` would make it: chat, unless there is a `prompt`."""
    if prompt is None and messages is None:
        messages = (Message("user", "Hello"),)
    query = Query(messages=messages, prompt=prompt, sampling=Sampling(**sampling), passthrough=passthrough or {})
    target = Target(label=model, name=model, provider="up", model=model)
    credential = Credential(SecretStr(own_key), "digest") if own_key else None
    return Call(7, 0, 0, target, query, fitted=provider.fit(target, query), credential=credential)


def encode_body(provider: HttpProvider, call: Call, *, stream: bool = False) -> Any:
    """Return the JSON that a call sends."""
    return json.loads(b"".join(provider.encode(call, stream=stream).pieces))


def replay_stream(
    provider: HttpProvider, call: Call, pieces: Iterable[bytes], headers: Mapping[str, str] | None = None
) -> StreamParts:
    """Return what a stream that arrives in these pieces yields."""
    reader = provider.open_reader(call, CIMultiDict(headers or {}))
    deltas: list[Delta] = []
    for piece in pieces:
        if reader.is_ended:
            break
        deltas += reader.feed(piece)
    deltas += reader.flush()
    return deltas, reader.close()


def try_stream(
    provider: HttpProvider, call: Call, pieces: Iterable[bytes], headers: Mapping[str, str] | None = None
) -> StreamResult:
    """Return what such a stream yields, or its failure; raise anything else."""
    try:
        return replay_stream(provider, call, pieces, headers)
    except ProviderError as error:
        return error.failure


def decode(provider: HttpProvider, call: Call, status: int, body: Any, **headers: str) -> Completion:
    """Return the answer of a whole body, JSON or bytes; in the names of `headers`, `_` stands for `-`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()})
    return provider.decode(call, status, fields, data)


def try_decode(provider: HttpProvider, call: Call, status: int, body: Any, **headers: str) -> Completion | Failure:
    """Return the answer of such a body, or its failure."""
    try:
        return decode(provider, call, status, body, **headers)
    except ProviderError as error:
        return error.failure


def expect_failure(result: StreamResult | Completion) -> Failure:
    """Return `result`, which must be a failure."""
    assert isinstance(result, Failure)
    return result


def expect_answer(result: StreamResult | Completion) -> Completion:
    """Return `result`, which must be an answer; a stream's deltas must add up to it."""
    assert not isinstance(result, Failure), result
    if isinstance(result, Completion):
        return result
    deltas, completion = result
    message = completion.choices[0].message
    assert "".join(delta.text for delta in deltas) == message.text
    assert "".join(delta.reasoning or "" for delta in deltas) == (message.reasoning or "")
    return completion


def cut_at(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `body` in pieces."""
    ends = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


def corrupt(body: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    """Return `body` with other bytes at some places."""
    made = bytearray(body)
    for place, value in changes:
        made[place % len(made)] = value
    return bytes(made)


async def collect_stream(provider: HttpProvider, call: Call) -> StreamParts:
    """Return the pieces and the completion of a streamed call over the network."""
    pieces = [piece async for piece in provider.stream(call)]
    completion = pieces.pop()
    assert isinstance(completion, Completion)
    return [piece for piece in pieces if isinstance(piece, Delta)], completion


def open_session(*, may_write_heads: bool = True, verify: ssl.SSLContext | bool = True) -> aiohttp.ClientSession:
    """Open a session as the dispatcher opens it."""
    jar, connector = aiohttp.DummyCookieJar(), UpstreamConnector(verify, may_write_heads=may_write_heads)
    return aiohttp.ClientSession(connector=connector, cookie_jar=jar, request_class=WatchedRequest, **PARSER_LIMITS)
