"""Limits of keys: what a request may cost is reserved before it is sent and settled by what it did; restarts forget nothing."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.api import build_request
from fanout.core.sampling import Sampling
from fanout.core.schema import Failure, Outcome, Timing
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request
from fanout.requests.keys import KeyLimits
from fanout.server.accounts.admission import KEY_LEDGER, estimate_call, give_back, reserve, settle
from fanout.server.accounts.ledger import KeyCounts
from fanout.server.accounts.limits import Demand, LimitWindow, refuse
from fanout.server.lifecycle import DISPATCHER
from fanout.store.keys.counts import UseCount
from tests.server.accounts.conftest import ADMIN, MODEL, PRICED, Team, write_config
from tests.support.builders.outcomes import make_failure
from tests.support.client import Client
from tests.support.server import serve


async def read_own(team: Team, key: str) -> Any:
    return (await team.send(key, "GET", "/v1/keys/self")).json


async def test_a_budget_reserves_the_most_that_a_request_can_cost_and_settles_what_it_did(team: Team) -> None:
    key = (await team.make_key(budget_day_usd=1, budget_total_usd=50))["key"]

    first = await team.complete(key, model=PRICED, max_tokens=4)
    spent = first.json["cost_usd"]
    refused = await team.complete(key, model=PRICED, max_tokens=10)
    free = await team.complete(key, max_tokens=1000)
    fitting = await team.complete(key, model=PRICED, max_tokens=math.floor((1 - spent) * 10))

    assert (first.status, refused.status, free.status, fitting.status) == (200, 402, 200, 200)
    assert (refused.error["type"], refused.error["code"]) == ("insufficient_quota", "budget_spent")
    assert (
        f"this key's budget is 1 USD a day: {spent:.6g} are spent, and this could cost 1; it renews at" in refused.body.decode()
    )
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert refused.headers["x-should-retry"] == "false"
    own = await read_own(team, key)
    total = spent + fitting.json["cost_usd"]
    assert own["used"]["budget_day_usd"] == pytest.approx(total)
    assert own["left"]["budget_total_usd"] == pytest.approx(50 - total)
    assert (own["reserved_usd"], own["used"]["in_flight"], own["left"]["requests_per_minute"]) == (0, 0, None)
    assert own["renews"]["budget_day_usd"].endswith("T00:00:00Z")


async def test_what_was_spent_and_the_requests_of_the_last_minute_survive_a_restart(tmp_path: Path) -> None:
    config, environ = write_config(tmp_path), {"FANOUT_API_KEYS": ADMIN, "FANOUT_STORE": str(tmp_path / "fanout.db")}
    async with serve(config, **environ) as server:
        team = Team(Client(server))
        key = (await team.make_key(requests_per_minute=2, budget_month_usd=1))["key"]
        spent = (await team.complete(key, model=PRICED, max_tokens=3)).json["cost_usd"]
        await team.complete(key)
        before = await read_own(team, key)
    async with serve(config, **environ) as server:
        team = Team(Client(server))
        after = await read_own(team, key)
        # A minute later there would be room again.
        refused = await team.complete(key) if after["left"]["requests_per_minute"] < 1 else None

    assert spent > 0
    assert before["used"]["budget_month_usd"] == after["used"]["budget_month_usd"] == pytest.approx(spent)
    assert before["used"]["requests_per_minute"] == 2
    assert refused is None or refused.status == 429


@pytest.mark.parametrize("stream", [False, True])
async def test_over_its_requests_a_minute_a_key_is_told_when_there_is_room(team: Team, stream: bool) -> None:
    key = (await team.make_key(requests_per_minute=1, tokens_per_minute=5000))["key"]

    first = await team.complete(key, stream=stream)
    second = await team.complete(key, stream=stream)

    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert 4990 <= int(first.headers["x-ratelimit-remaining-tokens"]) < 5000
    assert second.status == 429
    assert (second.error["type"], second.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(second.headers["Retry-After"]) <= 120
    assert second.headers["x-ratelimit-reset-requests"].endswith("s")
    own = await read_own(team, key)
    assert own["used"]["tokens_per_minute"] == 3, "a token of the prompt and two of the answer, not what was reserved"


async def test_a_request_of_more_tokens_than_the_limit_is_told_that_it_never_fits(team: Team) -> None:
    key = (await team.make_key(tokens_per_minute=100))["key"]

    refused = await team.complete(key, max_tokens=101)

    assert (refused.status, refused.headers["x-should-retry"], refused.headers.get("Retry-After")) == (429, "false", None)
    assert "ask for less" in refused.error["message"]


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        ([MODEL], [MODEL]),
        (["local/ngram-*"], [MODEL, PRICED, "local/ngram-5"]),
        (["embedded"], [MODEL, PRICED, "local/ngram-5"]),
        (["LOCAL/*-3", MODEL], [MODEL, PRICED]),
        (["gpt-*"], []),
    ],
)
async def test_a_key_calls_its_models_alone_and_the_others_of_a_request_fail_in_their_places(
    models: list[str], allowed: list[str], team: Team
) -> None:
    key = (await team.make_key(models=models))["key"]
    asked = [MODEL, PRICED, "local/ngram-5"]

    got = await team.complete(key, model=asked)
    dry = await team.complete(key, model=asked, dry_run=True)
    listed = [model["id"] for model in (await team.send(key, "GET", "/v1/models")).json["data"]]
    looked_up = [(await team.send(key, "GET", f"/v1/models/{model}")).status for model in asked]

    assert sorted(listed) == sorted(allowed)
    assert looked_up == [200 if model in allowed else 404 for model in asked]

    if not allowed:
        assert (got.status, got.error["code"]) == (404, "model_not_allowed")
        assert f"this key may not call `{MODEL}`; allowed: `gpt-*`" in got.error["details"][0]["message"]
    else:
        failed = {choice["model"]: choice["error"]["code"] for choice in got.choices if choice.get("error")}
        assert failed == dict.fromkeys(set(asked) - set(allowed), "model_not_allowed")
    assert json.dumps(dry.json).count("model_not_allowed") == len(asked) - len(allowed)


async def test_a_budget_refuses_a_model_without_a_known_price(team: Team) -> None:
    key = (await team.make_key(budget_total_usd=1))["key"]

    got = await team.complete(key, model=[MODEL, "local/ngram-5"])

    assert [choice.get("error") and choice["error"]["code"] for choice in got.choices] == [None, "price_unknown"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}),
        ("/v1/responses", {"input": "a", "max_output_tokens": 1}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/tokenize", {"prompt": "a"}),
        ("/v4/completions", {"prompt": "a", "max_new_tokens": 1}),
    ],
)
async def test_every_dialect_counts_and_refuses(path: str, body: dict[str, Any], team: Team) -> None:
    key = (await team.make_key(requests_per_minute=1, models=["local/*"]))["key"]
    first, second = [await team.send(key, "POST", path, {"model": MODEL, **body}) for _ in range(2)]

    assert first.headers["x-ratelimit-limit-requests"] == "1", first.body
    assert second.status == 429
    counts = team.client.server.app[KEY_LEDGER].find((await read_own(team, key))["id"])
    assert counts
    assert (counts.in_flight, counts.reserved_usd) == (0, 0)


def test_requests_at_once_are_refused_over_their_number() -> None:
    counts = KeyCounts("key_1", in_flight=2)

    reply = refuse(counts, KeyLimits(in_flight=2), 0.0, Demand())

    assert reply
    assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
    assert refuse(counts, KeyLimits(in_flight=3), 0.0, Demand()) is None


@given(
    limit=st.integers(1, 1000),
    before=st.integers(0, 1000),
    current=st.integers(0, 1000),
    elapsed=st.floats(0, 0.999),
    needed=st.integers(1, 1000),
)
def test_after_the_wait_that_is_told_there_is_room_and_not_long_before(
    limit: int, before: int, current: int, elapsed: float, needed: int
) -> None:
    window = LimitWindow(limit, before, current, elapsed)
    wait_s = window.compute_wait_s(needed)

    def has_room_in(seconds: float) -> bool:
        minutes, part = divmod(elapsed + seconds / 60, 1)
        counted = {0: (before, current), 1: (current, 0)}.get(int(minutes), (0, 0))
        return LimitWindow(limit, *counted, part).used + needed <= limit

    assert (wait_s == math.inf) == (needed > limit)
    if wait_s not in (0, math.inf):
        assert has_room_in(wait_s + 0.01)
        assert not has_room_in(wait_s - 0.2)
    assert window.compute_reset_s() >= 0


async def test_a_stream_that_outlives_its_request_settles_at_its_own_end(team: Team) -> None:
    key = (await team.make_key(budget_total_usd=5))["key"]

    streamed = await team.complete(key, model=PRICED, max_tokens=4, stream=True, resumable=True)
    own = await read_own(team, key)

    assert streamed.status == 200
    assert (own["reserved_usd"], own["used"]["in_flight"]) == (0, 0)
    assert 0 < own["used"]["budget_total_usd"] <= 0.4


async def test_a_refusal_before_any_call_reserves_nothing(team: Team) -> None:
    key = (await team.make_key(budget_total_usd=5, in_flight=1))["key"]

    wrong = await team.complete(key, temperature=99)
    unknown = await team.complete(key, model="nobody")
    own = await read_own(team, key)

    assert (wrong.status, unknown.status) == (400, 404)
    assert (own["reserved_usd"], own["used"]["in_flight"], own["used"]["budget_total_usd"]) == (0, 0, 0)


async def test_a_call_that_its_reader_left_costs_what_was_sent_and_had_come(team: Team) -> None:
    key_id = (await team.make_key(budget_total_usd=50))["id"]
    server = team.client.server
    counts = await server.app[KEY_LEDGER].open(key_id)
    (call,) = server.dispatcher.plan(Request((Entry(PRICED),), ("a" * 40,), sampling=Sampling(max_tokens=100)))
    demand = estimate_call(server.dispatcher, call, has_price=True)
    reserve(counts, time.time(), demand)

    left = Failure("cancelled", "left", partial="b" * 20)
    settle(counts, demand, Outcome(call, left, Timing(attempts=1), None), server.dispatcher)

    used = counts.sum_days(None)
    assert demand.tokens == 110
    assert demand.cost_usd == pytest.approx(10)
    assert (counts.reserved_usd, used.requests, used.tokens) == (0, 1, 15)
    assert used.cost_usd == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("failure", "attempts", "tokens", "usd"),
    [
        (Failure("cancelled", "left"), 1, 100, 0.5),
        (Failure("timeout", "late"), 1, 100, 0.5),
        (Failure("malformed", "no JSON"), 1, 100, 0.5),
        (Failure("content_filter", "a hook has refused it"), 1, 100, 0.5),
        (Failure("internal", "a hook has failed"), 1, 100, 0.5),
        (Failure("cancelled", "left", partial="12345678"), 1, 3, None),
        (Failure("content_filter", "the provider takes no such prompt", status=400), 1, 0, 0),
        (Failure("server", "down", status=503), 1, 0, 0),
        (Failure("cancelled", "left while it waited"), 0, 0, 0),
    ],
)
async def test_a_call_without_an_answer_that_may_be_charged_counts_in_full(
    team: Team, failure: Failure, attempts: int, tokens: int, usd: float | None
) -> None:
    """Or whoever leaves before each end, or has its answers refused here, would never pay."""
    counts, demand = KeyCounts("key_1"), Demand(100, 0.5, time.time())
    reserve(counts, demand.at, demand)
    outcome = replace(make_failure("network"), result=failure, timing=Timing(attempts=attempts))
    dispatcher = team.client.server.app[DISPATCHER]
    (call,) = dispatcher.plan(build_request("hi", (PRICED,)))

    settle(counts, demand, replace(outcome, call=call), dispatcher)

    used = counts.sum_days(None)
    assert (used.tokens, counts.reserved_usd) == (tokens, 0)
    assert used.cost_usd == pytest.approx(0.2 if usd is None else usd)


def test_what_a_long_call_gives_back_makes_no_room_in_a_later_minute() -> None:
    counts, now = KeyCounts("key_1"), time.time()
    for minute in range(2, 7):
        demand = Demand(1000, 0, now - minute * 60)
        reserve(counts, demand.at, demand)
        give_back(counts, demand, UseCount(0, 10, 0.0))

    assert refuse(counts, KeyLimits(tokens_per_minute=1000), now, Demand(1001)) is not None
    assert refuse(counts, KeyLimits(tokens_per_minute=1000), now, Demand(1000)) is None


@pytest.mark.parametrize("field", ["models", "fallbacks"])
async def test_a_field_by_which_a_host_calls_another_model_is_refused_to_a_key_with_models(team: Team, field: str) -> None:
    key = (await team.make_key(models=[MODEL]))["key"]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, field: ["dear"]}

    got = await team.send(key, "POST", "/v1/chat/completions", body)
    free = await team.send(ADMIN, "POST", "/v1/chat/completions", body)

    assert (got.status, got.error["code"], got.error["details"][0]["param"]) == (404, "model_not_allowed", field)
    assert free.status == 200
