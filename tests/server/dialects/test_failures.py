"""Failures beside successes, and the status where nothing succeeded."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import start_server
from tests.support.client import Client, Reply
from tests.support.server import UP_KEY, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream, reserve_refusing_url

ALL_FAILED = [
    ("nobody", 404, "model_not_found", "not_found"),
    ("up/nobody", 404, "model_not_found", "not_found"),
    ("up/429-s-61", 429, None, "rate_limit"),
    ("up/429-code-insufficient_quota", 402, "insufficient_quota", "quota"),
    ("up/400", 400, None, "bad_request"),
    ("up/400-code-content_filter", 400, "content_filter", "content_filter"),
    ("up/401", 502, "invalid_api_key", "auth"),
    ("up/403", 502, "permission_denied", "auth"),
    ("up/500", 502, None, "server"),
    ("up/503", 502, None, "server"),
    ("up/529", 502, None, "server"),
    ("up/drop", 502, "disconnected", "network"),
    ("up/bad_json", 502, "invalid_json", "malformed"),
    ("up/empty_choices", 502, None, "malformed"),
    ("up/html", 502, None, "malformed"),
    ("up/hang", 504, "deadline_exceeded", "timeout"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("model", "status", "code", "kind"), ALL_FAILED, ids=[row[0] for row in ALL_FAILED])
async def test_the_status_follows_from_the_kind_if_all_calls_failed_alike(
    client: Client, model: str, status: int, code: str | None, kind: str, stream: bool
) -> None:
    """A stream's errors before the first byte are ordinary ones, too."""
    reply = await client.complete(model=[model, model], stream=stream and model != "up/bad_json", timeout_s=0.5)

    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/json"
    details = reply.error["details"]
    assert [(detail["index"], detail["entry"], detail["sample"]) for detail in details] == [(0, 0, 0), (1, 1, 0)]
    assert all((detail["kind"], detail["model"], detail["label"]) == (kind, model, model) for detail in details)
    assert all({"message", "type", "param", "code"} <= set(detail) for detail in details)
    if code:
        assert reply.error["code"] == code
    assert reply.headers.get("x-should-retry") == (None if status in (429, 503) else "false")
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    ("models", "status"),
    [
        (["nobody", "up/500"], 502),
        (["up/400", "up/429-s-61"], 502),
        (["up/400", "up/400-code-content_filter"], 400),
        (["up/hang", "up/hang", "nobody"], 502),
    ],
)
async def test_a_mixture_is_502_with_every_failure(client: Client, models: list[str], status: int) -> None:
    reply = await client.complete(model=models, timeout_s=0.3 if "up/hang" in models else 20)

    assert reply.status == status
    assert [detail["model"] for detail in reply.error["details"]] == models
    assert reply.error["code"] == "all_failed"
    assert (reply.error["type"], reply.error["param"]) == ("api_error", None)
    assert f"all {len(models)} calls failed" in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("model", "seconds"), [("429-s-61", "61"), ("429-s-60.2", "61"), ("429-ms-90500", "91"), ("429", None)], ids=str
)
async def test_retry_after_is_passed_on_in_whole_seconds(client: Client, model: str, seconds: str | None) -> None:
    reply = await client.complete(model=f"up/{model}", timeout_s=5)

    assert reply.status == 429
    assert reply.headers.get("Retry-After") == seconds


async def test_retry_after_is_the_shortest_wait_after_which_anything_may_be_answered(client: Client) -> None:
    reply = await client.complete(model=["up/429-s-80", "up/429-s-70", "up/429-s-90"], timeout_s=5)

    assert reply.headers["Retry-After"] == "70"


@timed
async def test_a_wait_for_our_own_limits_beyond_the_deadline_is_429_and_says_how_long(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path, limits={"requests_per_minute": 1})) as server:
        client = Client(server)
        assert (await client.complete(model="up/ok")).status == 200
        began = time.monotonic()
        reply = await client.complete(model="up/ok", timeout_s=5)

    assert time.monotonic() - began < 1, "it fails at once"
    assert reply.status == 429
    assert 58 <= int(reply.headers["Retry-After"]) <= 61
    assert len(upstream.requests) == 1


async def test_an_unreachable_host_is_one_entrys_failure(upstream: Upstream, tmp_path: Path) -> None:
    with reserve_refusing_url() as url:
        dead = {"adapter": "openai", "base_url": url, "retries": {"attempts": 1}}
        config = write_providers_file(upstream.url, tmp_path, more={"providers": {"dead": dead}})
        async with serve(config) as server:
            reply = await Client(server).complete(model=["dead/x", "up/ok"])

    dead_choice, good = reply.choices
    assert (reply.status, good["error"]) == (200, None)
    assert dead_choice["error"]["kind"] == "network"
    assert "127.0.0.1" not in dead_choice["error"]["message"]


async def test_failures_keep_their_places_beside_successes(client: Client) -> None:
    reply = await client.complete(model=["up/500", "up/ok", "up/400", "up/say-a"], n=2)

    assert reply.status == 200
    assert [choice["index"] for choice in reply.choices] == list(range(8))
    assert [choice["entry"] for choice in reply.choices] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [choice["finish_reason"] for choice in reply.choices] == ["error"] * 2 + ["stop"] * 2 + ["error"] * 2 + ["stop"] * 2
    failed = reply.choices[0]
    assert failed["usage"] == dict.fromkeys(failed["usage"]), "of a failed call nothing is known"
    assert (failed["cost_usd"], failed["logprobs"], failed["text"]) == (None, None, "")
    assert failed["timing"]["attempts"] == 3
    assert (failed["provider"], failed["upstream_model"]) == ("up", "500")
    assert failed["error"]["upstream_status"] == 500
    assert failed["error"]["upstream_request_id"].startswith("req-")
    assert reply.json["usage"]["completion_tokens"] == 16
    assert reply.json["usage"]["unknown"] == 0, "a call that failed reported nothing that could be missing"


async def test_passing_failures_are_retried_and_the_attempts_counted(client: Client) -> None:
    choice = (await client.complete(model="up/fail-2-then-ok")).choice

    assert (choice["timing"]["attempts"], choice["error"], choice["text"]) == (3, None, "This is fail-2-then-ok.")


@timed
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_deadline_ends_late_calls_and_no_others(client: Client, upstream: Upstream, stream: bool) -> None:
    began = time.monotonic()
    if stream:
        answer = await client.stream(model=["up/ok", "up/hang"], timeout_s=0.4)
        good, late = answer.ends
    else:
        good, late = (await client.complete(model=["up/ok", "up/hang"], timeout_s=0.4)).choices

    assert 0.35 < time.monotonic() - began < 0.9
    assert good["error"] is None
    assert (late["finish_reason"], late["error"]["code"]) == ("timeout", "deadline_exceeded")
    assert late["error"]["kind"] == "timeout"
    await upstream.wait_until_idle(1)


async def test_the_servers_deadline_holds_where_the_caller_names_none(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_TIMEOUT_S="0.3") as server:
        reply = await Client(server).complete(model="up/hang")

    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize(("return_when", "answered"), [("first", 1), (1, 1), (2, 2), ("all", 4), (4, 4), (None, 4)])
async def test_return_when_ends_the_rest_upstream_and_marks_it(
    client: Client, upstream: Upstream, return_when: Any, answered: int
) -> None:
    models = ["up/sleep-0.4", "up/ok", "up/sleep-0.1", "up/sleep-0.3"]
    choices = (await client.complete(model=models, return_when=return_when)).choices

    ended = [choice for choice in choices if choice["error"] is None]
    assert len(ended) == answered
    for cancelled in (choice for choice in choices if choice["error"]):
        assert cancelled["finish_reason"] == "error"
        assert cancelled["error"]["code"] == cancelled["error"]["kind"] == "cancelled"
        assert cancelled["usage"]["completion_tokens"] is None
    await upstream.wait_until_idle(1)
    assert len(upstream.abandoned) == 4 - answered


async def test_return_when_counts_entries_with_all_their_samples(client: Client) -> None:
    entries = [{"model": "up/sleep-0.1", "n": 3}, "up/sleep-0.5"]
    choices = (await client.complete(model=entries, return_when=1)).choices

    assert [choice["error"] is None for choice in choices] == [True, True, True, False]


async def test_return_when_waits_for_successes_not_failures(client: Client) -> None:
    choices = (await client.complete(model=["up/400", "up/sleep-0.1", "up/hang"], return_when="first")).choices

    assert [choice["finish_reason"] for choice in choices] == ["error", "stop", "error"]
    assert choices[0]["error"]["kind"] == "bad_request"


async def test_a_client_that_leaves_ends_every_call_upstream(client: Client, upstream: Upstream) -> None:
    asking = asyncio.create_task(client.complete(model=["up/hang", "up/hang_body"]))
    await upstream.wait_for_requests(2)
    asking.cancel()

    await upstream.wait_until_idle(2)
    assert len(upstream.abandoned) == 2
    assert client.server.in_flight == 0


async def test_a_client_that_leaves_ends_every_call_of_the_real_command(upstream: Upstream, tmp_path: Path) -> None:
    """`fanout serve` has a runner of its own, whose default would let the calls go on."""
    async with (
        start_server(write_providers_file(upstream.url, tmp_path)) as program,
        aiohttp.ClientSession(program.url) as session,
    ):
        body = {"prompt": "hi", "model": ["up/hang", "up/hang"]}
        asking = asyncio.create_task(session.post("/v1/completion", json=body).__aenter__())
        await upstream.wait_for_requests(2)
        asking.cancel()
        await upstream.wait_until_idle(2)
        (line,) = await program.wait_for_event("request.answered")

    assert len(upstream.abandoned) == 2
    assert (line["status"], line["results"]) == (499, ["cancelled", "cancelled"])


async def test_an_upstreams_message_is_passed_on_without_its_key_or_address(client: Client, upstream: Upstream) -> None:
    def show(reply: Reply) -> str:
        return str(reply.json) + str(dict(reply.headers))

    for model in ("up/400-leak", "up/429-leak-s-61", "up/500-leak", "up/error-502-leak-chunks-0", "up/401-leak"):
        for stream in (False, True):
            reply = await client.complete(model=model, stream=stream, timeout_s=1)
            assert reply.status >= 400
            assert UP_KEY not in show(reply)
            assert str(upstream.port) not in reply.error["message"]
            assert all(len(detail["message"]) <= 500 for detail in reply.error["details"])
