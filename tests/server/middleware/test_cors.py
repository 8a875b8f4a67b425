"""CORS: which origins' web pages may call, and the headers that their browsers get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, Reply
from tests.support.server import serve
from tests.support.upstream.server import Upstream

HOME, OTHER, STRANGER = "https://dash.example", "http://localhost:3000", "https://evil.example"
KEY = "key-one-abcdefghij"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
async def client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, FANOUT_CORS_ORIGINS=f"{HOME},{OTHER}", FANOUT_API_KEYS=KEY) as server:
        yield Client(server)


async def send_preflight(client: Client, origin: str, path: str = "/v1/completion") -> Reply:
    return await client.send("OPTIONS", path, headers={"Origin": origin, **ASKS})


@pytest.mark.parametrize("origin", [HOME, OTHER])
async def test_a_preflight_of_an_allowed_origin_needs_no_key(client: Client, origin: str) -> None:
    reply = await send_preflight(client, origin)

    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == origin
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    allowed = reply.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
    assert {"authorization", "content-type", "x-api-key", "x-openai-api-key", "x-request-id"} <= set(allowed)
    assert int(reply.headers["Access-Control-Max-Age"]) > 0
    assert reply.headers["Vary"] == "Origin"


async def test_whatever_header_an_allowed_page_asks_for_is_allowed(client: Client) -> None:
    """The vendors' own clients send some of theirs with every request."""
    asked = "x-stainless-lang,x-stainless-retry-count,openai-beta,api-key"
    headers = {"Origin": HOME, **ASKS, "Access-Control-Request-Headers": asked}
    reply = await client.send("OPTIONS", "/v1/chat/completions", headers=headers)

    assert reply.status == 204
    allowed = reply.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
    assert {*asked.split(","), "authorization"} <= set(allowed)


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{HOME}.evil.example", HOME.upper(), f"{HOME}:8443", "http://dash.example"]
)
async def test_a_preflight_of_another_origin_is_refused(client: Client, origin: str) -> None:
    reply = await send_preflight(client, origin)

    assert reply.status == 403
    assert not any(name.startswith("Access-Control") for name in reply.headers)


async def test_allowed_origins_may_read_answers_errors_and_streams(client: Client) -> None:
    headers = {"Origin": HOME, "x-api-key": KEY}
    answers: list[Any] = [
        await client.complete(headers, model="up/ok"),
        await client.stream(headers, model="up/ok"),
        await client.complete(headers, model="nobody"),
        await client.complete(headers, model="up/ok", temperature=9),
        await client.complete({"Origin": HOME}, model="up/ok"),
        await client.send("GET", "/nowhere", headers=headers),
        await client.send("GET", "/v1/models", headers=headers),
    ]

    assert [answer.status for answer in answers] == [200, 200, 404, 400, 401, 404, 200]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == HOME
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]


async def test_requests_of_other_origins_or_of_none_get_no_cors_headers(client: Client) -> None:
    for headers in ({"x-api-key": KEY}, {"x-api-key": KEY, "Origin": STRANGER}):
        reply = await client.complete(headers, model="up/ok")
        assert reply.status == 200
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert reply.headers["Vary"] == "Origin", "a cache must not give this answer to a page that may read it"


async def test_a_star_allows_every_origin(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_CORS_ORIGINS="*") as server:
        client = Client(server)
        assert (await send_preflight(client, STRANGER)).status == 204
        assert (await client.complete({"Origin": STRANGER}, model="up/ok")).headers["Access-Control-Allow-Origin"] == STRANGER


async def test_without_configured_origins_no_web_page_may_call(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path)) as server:
        client = Client(server)
        refused = await send_preflight(client, OTHER)
        plain = await client.complete({"Origin": OTHER}, model="up/ok")

    assert refused.status == 403
    assert "FANOUT_CORS_ORIGINS" in refused.error["message"]
    assert not {"Access-Control-Allow-Origin", "Vary"} & set(plain.headers)


async def test_a_foreign_host_is_refused_before_a_preflight_is_answered(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_CORS_ORIGINS="*") as server:
        reply = await Client(server).send("OPTIONS", "/v1/completion", headers={"Origin": HOME, "Host": "evil.example", **ASKS})

    assert reply.status == 403


async def test_an_options_request_that_is_no_preflight_is_405(client: Client) -> None:
    reply = await client.send("OPTIONS", "/v1/completion", headers={"x-api-key": KEY})

    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
