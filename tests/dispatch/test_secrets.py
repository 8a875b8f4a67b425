"""Secrets that an upstream returns: in headers, in fields, in sentences, whole and streamed, of every adapter."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from fanout.config.settings import load_settings
from fanout.core.errors import ProviderError
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    Credential,
    Delta,
    Failure,
    FittedParameters,
    Outcome,
    Query,
    Target,
)
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.providers import OnHeaders
from fanout.providers.mapping.failures import REQUEST_ID_HEADERS
from tests.support.bedrock_format import import_botocore
from tests.support.builders.dispatcher import ObservedDispatcher
from tests.support.builders.settings import write_providers_file
from tests.support.upstream.canned import serve_answers

KEY = "own+key/of=the-operator"
CALLERS = "a-callers-own-key-77"
OTHERS = "another-providers-key-5"
FANOUT = "fanouts-own-caller-key-1"
TOKEN = "IQoJsession/token+with=signs"
BEARERS = ("Authorization", "x-api-key", "x-goog-api-key", "api-key", "X-Amz-Security-Token", "X-Tenant")
ADAPTERS = ("openai", "azure", "anthropic", "gemini", "cohere", "ollama", "scale", "scale-llm-engine", "bedrock")


def read_secrets(request: web.Request) -> list[str]:
    """Return what a request bears, in every form in which it could come back."""
    sent = [request.headers[name] for name in BEARERS if name in request.headers]
    parts = [
        part
        for text in sent
        for part in text.replace("Signature=", " ").split(" ")
        if len(part) >= 20 and "SignedHeaders" not in part
    ]
    return parts or ["nothing"]


async def echo(request: web.Request) -> web.StreamResponse:
    """Answer with the request's secrets in every place that is passed on."""
    secrets = read_secrets(request)
    for place, secret in enumerate(secrets):
        ECHOED.setdefault(secret, place)
    word = "-".join(secrets)
    body = await request.text()
    headers: dict[str, str] = {str(name): word for name in REQUEST_ID_HEADERS}
    if "fail" in request.path + body:
        error = {"message": f"wrong: {word}", "code": word, "type": word, "param": word}
        return web.json_response({"error": error, "id": word, **error}, status=400, headers=headers)
    head = {"id": word, "model": word, "system_fingerprint": word}
    choice = {"index": 0, "finish_reason": word, "native_finish_reason": word}
    call = {"index": 0, "id": word, "type": "function", "function": {"name": "f", "arguments": "{}"}, "signature": word}
    beside = {"citations": [word], "debug": {word: {"deep": [word]}}, "tool_calls": [call]}
    if '"stream":true' not in body:
        message = {"role": "assistant", "content": "Hello", **beside}
        return web.json_response({**head, "choices": [{**choice, "message": message}]}, headers=headers)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
    await response.prepare(request)
    last: dict[str, Any] = {**head, "choices": [{**choice, "delta": {"content": "Hello", **beside}}]}
    if "break" in body:
        last = {"error": {"message": f"wrong: {word}", "code": word}}
    await response.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
    return response


ECHOED: dict[str, int] = {}


@pytest.fixture(autouse=True)
def echoed() -> Iterator[dict[str, int]]:
    ECHOED.clear()
    yield ECHOED
    ECHOED.clear()


@asynccontextmanager
async def open_echoing(folder: Path, adapter: str, **row: Any) -> AsyncGenerator[ObservedDispatcher]:
    """Open a dispatcher whose provider `up` echoes."""
    async with serve_answers(echo) as served:
        more: dict[str, Any] = {"other": {"adapter": "openai", "base_url": served.url, "api_key_env": "OTHER"}}
        row = {"adapter": adapter, "api_key_env": "UP", "retries": {"attempts": 1}, **row}
        config = write_providers_file(served.url, folder, more={"providers": more}, **row)
        environ = {"UP": KEY, "OTHER": OTHERS, "TENANT": "tenant-secret-of-header", "FANOUT_API_KEYS": FANOUT}
        async with open_dispatcher(load_settings(config, environ)) as dispatcher:
            yield ObservedDispatcher(dispatcher)


def show(outcomes: list[Outcome]) -> str:
    """Return all that is known of the results, which is what callers, logs and the store are given."""
    return "\n".join(repr(outcome.result) for outcome in outcomes)


async def stream(dispatcher: ObservedDispatcher, model: str) -> list[Outcome]:
    pieces = [piece async for piece in dispatcher.dispatcher.stream(dispatcher.plan(model), deadline_s=5)]
    assert not [secret for secret in ECHOED for piece in pieces if secret in repr(piece) and isinstance(piece, Delta)]
    return [piece for piece in pieces if isinstance(piece, Outcome)]


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_no_failure_shows_what_its_request_bore(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echoed: dict[str, int]
) -> None:
    """Neither in its sentence, nor as a code, a field's name or a request id."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    async with open_echoing(tmp_path, adapter, headers={"X-Tenant": "${TENANT}"}) as dispatcher:
        outcomes = await dispatcher.run("up/fail") + await stream(dispatcher, "up/fail")
    assert echoed
    assert all(isinstance(outcome.result, Failure) for outcome in outcomes)
    assert not [secret for secret in echoed if secret in show(outcomes)]


async def test_a_signed_request_has_neither_its_token_nor_its_signature_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echoed: dict[str, int]
) -> None:
    """AWS repeats both in its sentence about a signature that does not match."""
    import_botocore("botocore")
    for name, value in {"ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE01", "SECRET_ACCESS_KEY": "s" * 40, "SESSION_TOKEN": TOKEN}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    async with open_echoing(tmp_path, "bedrock", api_key_env=[]) as dispatcher:
        outcomes = await dispatcher.run("up/fail") + await stream(dispatcher, "up/fail")
    assert TOKEN in echoed
    assert any(len(secret) == 64 for secret in echoed), "no signature was sent"
    assert not [secret for secret in echoed if secret in show(outcomes)]


@pytest.mark.parametrize("model", ["up/ok", "up/break"])
async def test_no_answer_shows_what_its_request_bore(model: str, tmp_path: Path, echoed: dict[str, int]) -> None:
    """Neither as its id, its model or its finish reason, nor beside its text; streams that break included."""
    async with open_echoing(tmp_path, "openai", headers={"X-Tenant": "${TENANT}"}) as dispatcher:
        whole, streamed = await dispatcher.run("up/ok"), await stream(dispatcher, model)
    assert {KEY, "tenant-secret-of-header"} <= set(echoed)
    assert isinstance(whole[0].result, Completion)
    assert whole[0].result.request_id == whole[0].result.model == "[key]-[key]"
    assert whole[0].result.choices[0].native_finish_reason == "[key]-[key]"
    assert whole[0].result.choices[0].message.extra["citations"] == ["[key]-[key]"]
    assert whole[0].result.choices[0].message.tool_calls[0]["id"] == "[key]-[key]"
    assert not [secret for secret in echoed if secret in show(whole + streamed)]


@pytest.mark.parametrize("secret", [KEY, OTHERS, FANOUT, CALLERS])
async def test_an_adapter_of_ones_own_shows_no_secret_in_use(secret: str, tmp_path: Path) -> None:
    """Whosesoever it is, whatever the adapter does: its results pass the same edge."""
    async with open_echoing(tmp_path, "tests.dispatch.test_secrets") as dispatcher:
        calls = [replace_secret(call, secret) for call in dispatcher.plan("up/ok", "up/fail")]
        outcomes = await dispatcher.dispatcher.run(calls, deadline_s=5)
    assert [type(outcome.result).__name__ for outcome in outcomes] == ["Completion", "Failure"]
    assert secret not in show(outcomes)


def replace_secret(call: Call, secret: str) -> Call:
    """Return the call with its caller's own key, and in its prompt what the adapter is to leak."""
    query = replace(call.query, messages=None, prompt=secret)
    return replace(call, query=query, credential=Credential(SecretStr(CALLERS), "digest"))


def create(settings: Any, session: Any) -> LeakingAdapter:
    """See `providers.create`."""
    return LeakingAdapter()


class LeakingAdapter:
    """An adapter outside the package that puts the prompt wherever it can."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        leak = f"<{call.query.prompt}>"
        if call.target.model == "fail":
            raise ProviderError(Failure("bad_request", leak, code=leak, param=leak, request_id=leak))
        return Completion((Choice(Answer("Hello"), None, leak),), None, leak, leak, leak)

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield await self.complete(call)
