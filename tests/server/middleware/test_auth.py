"""Access: keys of callers, hosts, and callers' own keys for providers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError
from fanout.server.middleware.wrong_keys import DELAY_S, FREE_TRIES, MAX_ADDRESSES, MAX_HELD, WrongKeys
from fanout.server.reloading import check_access
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, encode_request, parse_response
from tests.support.server import UP_KEY, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

KEY, OTHER = "key-one-abcdefghij", "key-two-0123456789"
GUEST = "sk-guest-9876543210zyxwv"
GOOD = json.dumps({"prompt": "hi", "model": "up/ok"}).encode()


@pytest.fixture
async def locked_client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    """Start a server with keys, one of them from a file."""
    keys = tmp_path / "keys"
    keys.write_text(f"# who may call\n\n  {OTHER}  \n")
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, FANOUT_API_KEYS=f"{KEY}, third-key-0123456", FANOUT_API_KEYS_FILE=str(keys)) as server:
        yield Client(server)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {OTHER} "},
        {"x-api-key": KEY},
        {"X-API-KEY": "third-key-0123456"},
        {"Authorization": f"Bearer {KEY}", "x-api-key": KEY},
        {"api-key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": KEY, "api-key": KEY},
        {"Authorization": "Basic dXNlcjpwYXNz", "x-api-key": KEY},
    ],
    ids=str,
)
async def test_a_key_is_accepted_in_any_of_three_headers(locked_client: Client, headers: dict[str, str]) -> None:
    assert (await locked_client.complete(headers, model="up/ok")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"x-api-key": ""},
        {"x-api-key": KEY.upper()},
        {"X-OpenAI-Api-Key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": OTHER},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
        {"x-api-key": KEY, "api-key": OTHER},
        {"Authorization": f"Bearer {KEY},{OTHER}"},
    ],
    ids=str,
)
async def test_a_missing_unknown_or_ambiguous_key_is_refused(
    locked_client: Client, upstream: Upstream, headers: dict[str, str]
) -> None:
    for stream in (False, True):
        reply = await locked_client.complete(headers, model="up/ok", stream=stream)
        assert reply.status == 401
        assert reply.error["code"] == "invalid_api_key"
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert reply.headers["x-request-id"]
        assert not any(value in reply.error["message"] for value in headers.values() if value)
    assert not upstream.requests


@pytest.mark.parametrize("name", ["Authorization: Bearer ", "x-api-key: "])
async def test_a_key_that_is_not_utf_8_is_unknown(locked_client: Client, name: str) -> None:
    code, _, body = parse_response(await locked_client.send_raw(encode_request(GOOD, headers=f"{name}\xff\xfe\r\n")))

    assert (code, body["error"]["code"]) == (401, "invalid_api_key")


async def test_every_path_but_the_public_ones_needs_a_key(locked_client: Client) -> None:
    for path in ("/livez", "/health", "/readyz", "/livez/", "/%6civez/"):
        assert (await locked_client.send("GET", path)).status == 200
    for path in ("/v1/models", "/v1/models/ok", "/metrics", "/v4/models", "/nowhere", "/livez/x", "/v1//models/"):
        assert (await locked_client.send("GET", path)).status == 401, path
        assert (await locked_client.send("GET", path, headers={"x-api-key": KEY})).status != 401, path
    assert (await locked_client.send("POST", "/v1/completions", {"model": "up/ok"})).status == 401


@timed
async def test_a_caller_without_access_is_refused_before_sending_a_body(locked_client: Client) -> None:
    host, port = locked_client.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(encode_request().replace(b"Content-Length: 0", b"Content-Length: 1000000") + b"{")
    async with asyncio.timeout(1):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("app.localhost:1", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:80", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.0.10", 403),
        ("0.0.0.0", 403),
        ("[fe80::1]:80", 403),
        ("[::ffff:10.0.0.1]", 403),
        ("[::1]evil.example", 403),
        ("127.0.0.1:80:evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("", 403),
    ],
)
async def test_without_keys_only_this_machines_own_host_names_are_accepted(
    client: Client, upstream: Upstream, host: str, status: int
) -> None:
    """Otherwise a web page whose name is made to resolve to 127.0.0.1 could call."""
    code, headers, body = parse_response(await client.send_raw(encode_request(GOOD, headers=f"Host: {host}\r\n")))

    assert code == status
    assert headers["x-request-id"]
    if status == 403:
        assert body["error"]["code"] == "forbidden"
        assert "FANOUT_API_KEYS" in body["error"]["message"]
        assert not upstream.requests


async def test_with_keys_any_host_name_is_accepted(locked_client: Client) -> None:
    code, _, _ = parse_response(
        await locked_client.send_raw(encode_request(GOOD, headers=f"Host: fanout.example\r\nx-api-key: {KEY}\r\n"))
    )

    assert code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_can_be_served_without_keys(host: str) -> None:
    check_access(load_settings(None, {}), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.example.com"])
def test_other_addresses_cannot_be_served_without_keys(host: str) -> None:
    check_access(load_settings(None, {"FANOUT_API_KEYS": KEY}), host)

    with pytest.raises(ConfigError) as raised:
        check_access(load_settings(None, {}), host)
    assert "FANOUT_API_KEYS" in str(raised.value)


def test_objects_that_hold_a_key_do_not_show_it() -> None:
    environment = load_settings(None, {"FANOUT_API_KEYS": KEY, "OPENAI_API_KEY": GUEST})

    assert KEY not in repr(environment) + str(environment)
    assert GUEST not in repr(environment) + str(environment)


@pytest.fixture
async def guest_client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    """Start a server whose providers accept callers' keys: only `shared` has a key of the server's; both allow one call."""
    row = {
        "adapter": "openai",
        "base_url": upstream.url,
        "key_header": "X-OpenAI-Api-Key",
        "limits": {"concurrency": 1},
        "retries": {"attempts": 1},
    }
    more = {
        "providers": {
            "theirs": {**row, "api_key_env": "UNSET_KEY"},
            "shared": {**row, "api_key_env": "UP_KEY"},
            "stranger": {**row, "key_header": "X-Stranger-Key", "api_key_env": "UP_KEY"},
        }
    }
    async with serve(write_providers_file(upstream.url, tmp_path, more=more, api_key_env="UP_KEY"), UP_KEY=UP_KEY) as server:
        yield Client(server)


async def test_a_callers_own_key_makes_its_provider_ready_and_is_sent_to_it_alone(
    guest_client: Client, upstream: Upstream
) -> None:
    models = ["theirs/say-1", "shared/say-2", "stranger/say-3", "up/say-4"]
    without = await guest_client.complete(model=models)
    own = await guest_client.complete({"X-OpenAI-Api-Key": GUEST}, model=models)
    after = await guest_client.complete(model=models)

    assert without.choices[0]["error"]["code"] == after.choices[0]["error"]["code"] == "provider_not_configured"
    assert "`X-OpenAI-Api-Key`" in without.choices[0]["error"]["message"]
    assert [choice["error"] for choice in own.choices] == [None] * 4
    keys = {
        name: [request.headers["authorization"] for request in upstream.requests_for(name)]
        for name in ("say-1", "say-2", "say-3")
    }
    assert keys["say-1"] == [f"Bearer {GUEST}"]
    assert keys["say-2"] == [f"Bearer {UP_KEY}", f"Bearer {GUEST}", f"Bearer {UP_KEY}"]
    assert keys["say-3"] == [f"Bearer {UP_KEY}"] * 3
    assert {request.headers["authorization"] for request in upstream.requests_for("say-4")} == {f"Bearer {UP_KEY}"}
    assert not any("x-openai-api-key" in request.headers for request in upstream.requests)


async def test_a_callers_own_key_has_limits_of_its_own(guest_client: Client, upstream: Upstream) -> None:
    async def call(key: str | None) -> None:
        await guest_client.complete({"X-OpenAI-Api-Key": key} if key else None, model="shared/sleep-0.3")

    async with asyncio.TaskGroup() as group:
        for key in (None, None, GUEST, GUEST, GUEST + "2"):
            group.create_task(call(key))

    assert upstream.peak == 3, "one each for the server's key and for each caller's"


async def test_a_callers_own_key_appears_in_no_answer_and_no_log(guest_client: Client, log_lines: list[str]) -> None:
    headers = {"X-OpenAI-Api-Key": GUEST}
    seen = []
    for model in ("theirs/ok", "theirs/400-leak", "theirs/401", "theirs/429-leak-s-60", "theirs/drop", "nobody"):
        for stream in (False, True):
            reply = await guest_client.complete(headers, model=[model, "up/ok"], stream=stream, timeout_s=2)
            seen += [reply.body.decode(), str(reply.headers)]
            seen.append((await guest_client.complete(headers, model=model, stream=stream, timeout_s=2)).body.decode())
    seen.append((await guest_client.send("GET", "/metrics")).body.decode())
    everything = "\n".join([*seen, *log_lines])

    assert GUEST not in everything
    assert GUEST[:12] not in everything
    assert UP_KEY not in everything
    assert hashlib.sha256(GUEST.encode()).hexdigest()[:8] not in everything
    assert len(log_lines) > 20


async def test_an_overlong_key_is_refused_and_not_ignored(guest_client: Client, upstream: Upstream) -> None:
    """If the key were ignored, the call would be made at the server's expense."""
    reply = await guest_client.complete({"X-OpenAI-Api-Key": "k" * 4097}, model="shared/ok")

    assert (reply.status, reply.params) == (400, ["X-OpenAI-Api-Key"])
    assert not upstream.requests


async def test_a_key_that_no_header_can_carry_fails_its_entry_alone(guest_client: Client, upstream: Upstream) -> None:
    code, _, body = parse_response(
        await guest_client.send_raw(encode_request(GOOD.replace(b"up/ok", b"shared/ok"), headers="X-OpenAI-Api-Key: \xe9\r\n"))
    )

    assert code == 502
    assert body["error"]["code"] == "invalid_api_key"
    assert not upstream.requests


ADDED_BY_PROXIES = (
    "X-Forwarded-For",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "x-forwarded-host",
    "CF-Connecting-IP",
    "X-Forwarded-Proto",
)
MORE = ("X-Original-Forwarded-For", "CDN-Loop", "X-Envoy-External-Address", "Fly-Client-IP", "X-Azure-ClientIP")


@pytest.mark.parametrize("name", [*ADDED_BY_PROXIES, *MORE])
async def test_without_keys_what_a_proxy_has_passed_on_is_refused(client: Client, upstream: Upstream, name: str) -> None:
    """A local proxy that sends its upstream's name as `Host` would open the server to whoever calls the proxy."""
    for value in ("203.0.113.7", ""):
        code, _, body = parse_response(await client.send_raw(encode_request(GOOD, headers=f"{name}: {value}\r\n")))
        assert (code, body["error"]["code"]) == (403, "forbidden")
        assert f"`{name}`".lower() in body["error"]["message"].lower()
        assert "FANOUT_API_KEYS" in body["error"]["message"]
    assert not upstream.requests


async def test_with_keys_a_proxy_may_pass_requests_on(locked_client: Client) -> None:
    headers = f"X-Forwarded-For: 203.0.113.7\r\nVia: 1.1 proxy\r\nx-api-key: {KEY}\r\n"
    assert parse_response(await locked_client.send_raw(encode_request(GOOD, headers=headers)))[0] == 200


def test_every_origin_may_call_only_where_keys_are_set() -> None:
    check_access(load_settings(None, {"FANOUT_CORS_ORIGINS": "*", "FANOUT_API_KEYS": KEY}), "127.0.0.1")
    check_access(load_settings(None, {"FANOUT_CORS_ORIGINS": "https://a.example"}), "127.0.0.1")

    with pytest.raises(ConfigError, match=r"FANOUT_CORS_ORIGINS: is `\*` without FANOUT_API_KEYS"):
        check_access(load_settings(None, {"FANOUT_CORS_ORIGINS": "https://a.example,*"}), "127.0.0.1")


@timed
async def test_wrong_keys_are_slowed_and_right_ones_are_not(locked_client: Client) -> None:
    wrong = {"x-api-key": "wrong-key-0123456789"}
    began = time.monotonic()
    assert [(await locked_client.complete(wrong, model="up/ok")).status for _ in range(FREE_TRIES)] == [401] * FREE_TRIES
    assert time.monotonic() - began < DELAY_S

    began = time.monotonic()
    many = [asyncio.create_task(locked_client.complete(wrong, model="up/ok")) for _ in range(MAX_HELD + 6)]
    await asyncio.sleep(DELAY_S / 4)
    assert (await locked_client.complete({"x-api-key": KEY}, model="up/ok")).status == 200
    assert (await locked_client.complete(model="up/ok")).status == 401, "no key is no wrong key"
    assert time.monotonic() - began < DELAY_S
    replies = await asyncio.gather(*many)

    assert time.monotonic() - began >= DELAY_S
    refused = [reply for reply in replies if reply.status == 429]
    assert (len(refused), len(replies) - len(refused)) == (6, MAX_HELD)
    assert {reply.error["code"] for reply in refused} == {"too_many_wrong_keys"}
    assert {reply.headers["Retry-After"] for reply in refused} == {"60"}


async def test_wrong_keys_are_counted_by_address_in_a_bounded_table() -> None:
    wrong = WrongKeys()
    async with asyncio.timeout(DELAY_S):
        for number in range(MAX_ADDRESSES + 100):
            await wrong.slow(f"10.0.{number // 256}.{number % 256}")
        for number in range(FREE_TRIES):
            await wrong.slow(f"2001:db8::{number}")
    assert len(wrong) == MAX_ADDRESSES
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(DELAY_S / 4):
            await wrong.slow("2001:db8::ffff")  # a caller has the whole network


async def test_every_answer_keeps_browsers_from_guessing_types(locked_client: Client) -> None:
    key = {"x-api-key": KEY}
    replies = [
        await locked_client.complete(key, model="up/ok"),
        await locked_client.complete(key, model="up/ok", stream=True),
        await locked_client.complete(model="up/ok"),
        await locked_client.send("GET", "/docs"),
        await locked_client.send("GET", "/nowhere", headers=key),
        await locked_client.send("GET", "/metrics", headers=key),
        await locked_client.send("OPTIONS", "/v1/models", headers={"Origin": "x", "Access-Control-Request-Method": "GET"}),
    ]
    assert [reply.headers.getall("X-Content-Type-Options") for reply in replies] == [["nosniff"]] * len(replies)
