"""Gemini on Vertex AI: its addresses, and the token that google-auth fetches, from a real service account's key."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fanout.core.errors import ProviderError, explain_missing_extra
from fanout.core.schema import Failure
from fanout.providers.gemini.vertex import Vertex, build_project_address
from tests.support.provider_calls import build_adapter, build_call, encode_body, open_session
from tests.support.timing import timed
from tests.support.upstream.canned import CannedServer, serve_adapter, serve_answers

ANSWER = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}
HERE = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google"

Grant = Callable[[], web.Response]


@pytest.fixture(autouse=True)
def google_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs the package; and nothing of this machine's own account."""
    try:
        there = find_spec("google.auth") and find_spec("requests")
    except ModuleNotFoundError:
        there = None
    if not there:
        reason = "NO VERTEX: google-auth is not installed; `pip install -e .[test]` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kind, shape, lock = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made.private_bytes(kind, shape, lock).decode()


def write_account(folder: Path, key: str, token_uri: str, **more: Any) -> Path:
    """A service account's key file."""
    path = folder / "account.json"
    fields = {"type": "service_account", "project_id": "p", "client_email": "me@p.test", "private_key": key}
    path.write_text(json.dumps({**fields, "token_uri": token_uri, **more}))
    return path


@asynccontextmanager
async def serve_google(folder: Path, key: str, monkeypatch: pytest.MonkeyPatch, grant: Grant) -> AsyncIterator[CannedServer]:
    """A server that grants tokens and answers as Vertex does; the credentials for it are found where Google's tools look."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            await asyncio.sleep(0.05)
            return grant()
        return web.json_response(ANSWER)

    async with serve_answers(answer) as served:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_account(folder, key, f"{served.url}/token")))
        yield served


def grant_tokens(*tokens: str, expires_in: int = 3600) -> Grant:
    """Each of these tokens once."""
    left = list(tokens)
    return lambda: web.json_response({"access_token": left.pop(0), "expires_in": expires_in, "token_type": "Bearer"})


def list_bearers(served: CannedServer) -> list[str]:
    return [headers["Authorization"] for path, headers, _ in served.requests if path != "/token"]


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_address_depends_on_the_location(place: str, host: str) -> None:
    """As google-genai makes them."""
    assert build_project_address("p", place) == f"https://{host}/v1/projects/p/locations/{place}/publishers/google"


def test_the_address_comes_from_the_row_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row's own is taken as it is."""
    vertex = build_adapter(Vertex, HERE, key=None)
    assert str(vertex.encode(build_call(vertex, "gemini-2.5-pro"), stream=True).url) == (
        f"{HERE}/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    )
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    elsewhere = build_adapter(Vertex, None, key=None)
    assert str(elsewhere.encode(build_call(elsewhere), stream=False).url).startswith(
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west4/publishers/google/models/m:"
    )


def test_penalties_end_later_than_on_the_gemini_api() -> None:
    vertex = build_adapter(Vertex, HERE, key=None)
    params: dict[str, Any] = {"presence_penalty": 0.5, "n": 2}
    expected = {"presencePenalty": 0.5, "candidateCount": 2}
    assert encode_body(vertex, build_call(vertex, "gemini-2.5-pro", **params))["generationConfig"] == expected
    assert build_call(vertex, "gemini-3.6-flash", **params).fitted.ignored == ("n", "presence_penalty")


async def test_calls_at_once_fetch_one_token(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the calls after them, too; the project is the credentials'."""
    async with serve_google(tmp_path, key, monkeypatch, grant_tokens("t1")) as served, open_session() as session:
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        await asyncio.gather(*(vertex.complete(build_call(vertex)) for _ in range(20)))
        completion = await vertex.complete(build_call(vertex))
    assert completion.choices[0].message.text == "Hi"
    assert [path for path, _, _ in served.requests].count("/token") == 1
    assert set(list_bearers(served)) == {"Bearer t1"}
    assert vertex.token.project == "p"


@timed
async def test_a_token_about_to_expire_serves_while_it_is_replaced(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the new one, and only one is fetched."""
    async with (
        serve_google(tmp_path, key, monkeypatch, grant_tokens("t1", "t2", expires_in=200)) as served,
        open_session() as session,
    ):
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        await vertex.complete(build_call(vertex))
        began = time.monotonic()
        await asyncio.gather(*(vertex.complete(build_call(vertex)) for _ in range(3)))
        assert time.monotonic() - began < 0.05
        async with asyncio.timeout(5):
            while vertex.token.value != "t2":
                await asyncio.sleep(0.01)
    assert set(list_bearers(served)) == {"Bearer t1"}
    assert [path for path, _, _ in served.requests].count("/token") == 2


async def test_a_caller_who_leaves_does_not_take_the_refresh_along(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_google(tmp_path, key, monkeypatch, grant_tokens("t1")) as served, open_session() as session:
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        first, second = (asyncio.ensure_future(vertex.complete(build_call(vertex))) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).choices[0].message.text == "Hi"
        with pytest.raises(asyncio.CancelledError):
            await first


async def fail_call(vertex: Vertex) -> Failure:
    with pytest.raises(ProviderError) as caught:
        await vertex.complete(build_call(vertex))
    return caught.value.failure


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"error": "invalid_grant", "error_description": "me@p.test is gone"}, "auth", "`up` refused the credentials"),
        (503, {"error": "unavailable"}, "server", "`up` has a token service that failed"),
    ],
)
async def test_a_refused_token_is_reported_in_our_words(
    status: int, body: Any, kind: str, message: str, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's name accounts and addresses; the next call tries again."""
    answers = [web.json_response(body, status=status) for _ in range(20)]
    async with serve_google(tmp_path, key, monkeypatch, answers.pop) as served, open_session() as session:
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        failure = await fail_call(vertex)
        assert (failure.kind, failure.message) == (kind, message)
        params = len(served.requests)
        await fail_call(vertex)
        assert len(served.requests) > params


async def test_an_unreachable_token_service_is_a_network_failure(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_account(tmp_path, key, "http://127.0.0.1:9/token")))
    failure = await fail_call(build_adapter(Vertex, None, key=None))
    assert (failure.kind, failure.message) == ("network", "`up` has a token service that cannot be reached")


@pytest.mark.parametrize("content", [None, "{", "{}", '{"type": "service_account"}', "broken key"], ids=str)
async def test_missing_or_broken_credentials_are_reported(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is needed, not where it looked."""
    path = tmp_path / "account.json"
    if content == "broken key":
        write_account(tmp_path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "http://127.0.0.1:9/token")
    elif content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    failure = await fail_call(build_adapter(Vertex, None, key=None))
    assert (failure.kind, failure.code) == ("not_configured", "provider_not_configured")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in failure.message
    assert str(tmp_path) not in failure.message


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "google.auth", None)
    failure = await fail_call(build_adapter(Vertex, None, key=None))
    assert (failure.kind, failure.code) == ("not_configured", "provider_not_configured")
    assert explain_missing_extra("google-auth", "vertex") in failure.message


async def test_a_missing_project_is_named(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the credentials know one."""
    async with serve_google(tmp_path, key, monkeypatch, grant_tokens("t1")) as served:
        write_account(tmp_path, key, f"{served.url}/token", project_id=None)
        failure = await fail_call(build_adapter(Vertex, None, key=None))
    assert (failure.kind, failure.message) == ("not_configured", "`up` needs a project in `GOOGLE_CLOUD_PROJECT`")


async def test_the_quota_of_another_project_is_used(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials may name it."""
    async with serve_google(tmp_path, key, monkeypatch, grant_tokens("t1")) as served, open_session() as session:
        write_account(tmp_path, key, f"{served.url}/token", quota_project_id="payer")
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        await vertex.complete(build_call(vertex))
        assert served.requests[-1][1].get("x-goog-user-project") == vertex.token.payer


async def test_a_token_of_the_row_is_sent_unchanged() -> None:
    """One that something else keeps fresh; no credentials are looked for."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serve_adapter(Vertex, answer, key="ya29.mine-0123456789") as (vertex, served):
        await vertex.complete(build_call(vertex))
        await vertex.complete(build_call(vertex, own_key="theirs"))
    assert list_bearers(served) == ["Bearer ya29.mine-0123456789", "Bearer theirs"]


async def test_a_failure_does_not_show_the_token(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should an answer repeat it."""
    async with serve_google(tmp_path, key, monkeypatch, grant_tokens("tok.12345678")) as served, open_session() as session:
        vertex = build_adapter(Vertex, served.url, session=session, key=None)
        await vertex.complete(build_call(vertex))
        assert vertex.origin(build_call(vertex)).secrets == ("tok.12345678",)
