"""`GET /v1/providers`: the state of each account, and nothing by which a key or its owner could be recognized."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fanout.core.schema import Call, Completion, Credential, Failure, Outcome, Query, Target, Timing
from fanout.observability.account_health import MAX_CALLS, RecentCalls
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import UP_KEY, Server, serve
from tests.support.upstream.server import Upstream

GUEST = "sk-guest-9876543210zyxwv"
NOTHING = {
    "calls": 0,
    "answered": 0,
    "failures": {},
    "error_rate": None,
    "median_ms": None,
    "p95_ms": None,
    "median_ttft_ms": None,
}
MORE = {
    "providers": {
        "needy": {"adapter": "openai", "base_url": "https://needy.invalid:8443/deployments/7f3a/v1", "api_key_env": "NEEDY"}
    },
    "models": {"apart": {"provider": "up", "id": "ok", "kind": "chat", "limit_group": "apart"}},
}


async def get_providers(server: Server, **headers: str) -> dict[str, dict[str, Any]]:
    reply = await Client(server).send("GET", "/v1/providers", headers=headers)
    assert reply.status == 200
    assert reply.json["object"] == "list"
    return {provider["id"]: provider for provider in reply.json["data"]}


def write_config(upstream: Upstream, folder: Path, **row: Any) -> Path:
    return write_providers_file(upstream.url, folder, more=MORE, api_key_env="UP_KEY", key_header="X-Up-Key", **row)


async def test_configured_providers_are_shown_before_any_call(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path, limits={"concurrency": 3}), UP_KEY=UP_KEY) as server:
        shown = await get_providers(server)

    assert (shown["needy"]["ready"], shown["needy"]["missing"], shown["needy"]["host"]) == (
        False,
        ["NEEDY"],
        "needy.invalid:8443",
    )
    assert (shown["local"]["adapter"], shown["local"]["host"], shown["local"]["ready"]) == ("ngram", None, True)
    up = shown["up"]
    assert (up["host"], up["key_header"], up["limits"]["concurrency"]) == (f"127.0.0.1:{upstream.port}", "X-Up-Key", 3)
    assert [(account["limit_group"], account["own_keys"]) for account in up["accounts"]] == [
        (None, None),
        ("apart", None),
        (None, 0),
    ]
    for account in up["accounts"]:
        assert (account["in_flight"], account["waiting"], account["concurrency"]) == (0, 0, 3)
        assert (account["reported_limits"], account["pauses"], account["recent"]) == ([], [], NOTHING)


async def test_calls_in_flight_and_waiting_are_shown(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path, limits={"concurrency": 2}), UP_KEY=UP_KEY) as server:
        request = asyncio.create_task(Client(server).complete(model=["up/sleep-0.3"] * 5))
        await upstream.wait_for_requests(2)
        account = (await get_providers(server))["up"]["accounts"][0]
        await request

    assert (account["in_flight"], account["waiting"], account["waiting_batch"], account["concurrency"]) == (2, 3, 0, 2)


async def test_reported_quotas_and_the_holds_they_cause_are_shown(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path), UP_KEY=UP_KEY) as server:
        client = Client(server)
        await client.complete(model="up/ok-remaining-0-limit-5-reset-30s")
        await client.complete(model=["up/429-s-20-code-slow_down", "apart"], timeout_s=5)
        account, apart, _ = (await get_providers(server))["up"]["accounts"]

    (reported,) = account["reported_limits"]
    assert reported["model"] == "ok-remaining-0-limit-5-reset-30s"
    assert (reported["requests"]["limit"], reported["requests"]["remaining"]) == (5, 0)
    assert reported["requests"]["reset_s"] + reported["age_s"] == pytest.approx(30, abs=0.01)
    assert reported["tokens"] == {"limit": None, "remaining": None, "reset_s": None}
    pauses = {pause["model"]: pause for pause in account["pauses"]}
    assert pauses["429-s-20-code-slow_down"]["reason"] == "slow_down"
    assert 10 < pauses["429-s-20-code-slow_down"]["seconds_left"] <= 20
    assert pauses["ok-remaining-0-limit-5-reset-30s"]["reason"] == "requests_left"
    assert 20 < pauses["ok-remaining-0-limit-5-reset-30s"]["seconds_left"] <= 30
    assert (apart["limit_group"], apart["pauses"], apart["recent"]["answered"]) == ("apart", [], 1)


async def test_an_open_circuit_is_shown_and_its_calls_are_503_with_the_time_of_the_next_probe(
    upstream: Upstream, tmp_path: Path
) -> None:
    limits = {"circuit": {"failures": 3, "sustained_s": 0, "probe_after_s": 60}}
    retries = {"attempts": 3, "max_delay_s": 0.02}
    async with serve(write_config(upstream, tmp_path, limits=limits, retries=retries), UP_KEY=UP_KEY) as server:
        client = Client(server)
        assert (await client.complete(model="up/503")).status == 502
        reply = await client.complete(model=["up/503", "up/503"])
        mixed = await client.complete(model=["up/503", "up/ok"])
        account, apart, own = (await get_providers(server))["up"]["accounts"]
        metrics = await client.send("GET", "/metrics")

    assert (reply.status, reply.json["error"]["code"]) == (503, "provider_unavailable")
    assert 50 < int(reply.headers["Retry-After"]) <= 60
    failed, answered = mixed.json["choices"]
    assert (failed["error"]["code"], failed["model"], answered["text"]) == ("provider_unavailable", "up/503", "This is ok.")
    (circuit,) = account["circuits"]
    assert (circuit["model"], circuit["failures"], circuit["reason"]) == ("503", 3, "server_error")
    assert 50 < circuit["probe_in_s"] <= 60
    assert circuit["failing_s"] >= 0
    assert (apart["circuits"], own["circuits"]) == ([], [])
    assert 'fanout_account_open_circuits{account="up"} 1' in metrics.body.decode()


async def test_recent_outcomes_are_shown(upstream: Upstream, tmp_path: Path) -> None:
    retries = {"attempts": 1}
    async with serve(write_config(upstream, tmp_path, retries=retries), UP_KEY=UP_KEY) as server:
        client = Client(server)
        await client.complete(model=["up/sleep-0.2", "up/sleep-0.2", "up/500", "up/400", "nobody", "needy/x"])
        await client.stream(model="up/first-0.2")
        shown = await get_providers(server)

    recent = shown["up"]["accounts"][0]["recent"]
    assert (recent["calls"], recent["answered"], recent["failures"]) == (5, 3, {"server": 1, "bad_request": 1})
    assert recent["error_rate"] == 0.4
    assert 200 <= recent["median_ms"] <= recent["p95_ms"]
    assert recent["median_ttft_ms"] >= 200
    assert shown["needy"]["accounts"][0]["recent"] == NOTHING, "a call that is not sent does not count"


async def test_callers_own_keys_are_shown_together_and_cannot_be_recognized(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path), UP_KEY=UP_KEY) as server:
        client = Client(server)
        for number in range(3):
            await client.complete(headers={"X-Up-Key": f"{GUEST}-{number}"}, model="up/ok-remaining-3-limit-5-reset-30s")
        reply = await client.send("GET", "/v1/providers")
        own, _, guests = (await get_providers(server))["up"]["accounts"]

    assert (guests["own_keys"], guests["recent"]["answered"], guests["reported_limits"]) == (3, 3, [])
    assert (own["reported_limits"], own["recent"]["calls"]) == ([], 0)
    for secret in (GUEST, UP_KEY, "7f3a", "ok-remaining"):
        assert secret not in reply.body.decode()


async def test_providers_need_a_key_like_all_other_paths(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path), FANOUT_API_KEYS="key-one-abcdefghij") as server:
        assert (await Client(server).send("GET", "/v1/providers")).status == 401
        assert set(await get_providers(server, Authorization="Bearer key-one-abcdefghij")) == {"up", "local", "needy"}


def make_outcome(result: Completion | Failure, call_s: float = 0.1, *, guest: bool = False) -> Outcome:
    call = Call(0, 0, 0, Target("x", "x", "up", "m"), Query(prompt="x"), credential=Credential(None, "d") if guest else None)  # type: ignore[arg-type]
    return Outcome(call, result, Timing(call_s=call_s, attempts=1))


def test_only_the_last_calls_count_and_cancelled_ones_are_no_errors() -> None:
    recent = RecentCalls()
    for number in range(2 * MAX_CALLS):
        recent.observe(make_outcome(Completion(()), call_s=number))
    lately = recent.summarize([("up", None, False)])
    assert (lately.calls, lately.answered, lately.error_rate) == (MAX_CALLS, MAX_CALLS, 0.0)
    assert (lately.median_s, lately.p95_s) == (1499, 1949)

    recent.observe(make_outcome(Failure("cancelled", "x"), guest=True))
    assert recent.summarize([("up", None, True)]).error_rate is None
    recent.observe(make_outcome(Failure("server", "x"), guest=True))
    assert recent.summarize([("up", None, True)]).error_rate == 1.0
    assert recent.summarize([("up", None, True), ("up", None, False)]).calls == MAX_CALLS + 2
