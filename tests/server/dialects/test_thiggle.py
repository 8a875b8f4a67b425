"""Whole answers of `POST /v1/completion`: every field; unknown is null, never 0."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import UP_KEY, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

CHOICE = {
    *("index", "entry", "sample", "model", "label", "text", "created", "finish_reason", "logprobs", "usage", "provider"),
    *("upstream_model", "timing", "cost_usd", "ignored_parameters", "adjusted_parameters", "error"),
}
PRICE = {"input_usd_per_mtok": 30, "output_usd_per_mtok": 60, "cached_usd_per_mtok": 15}
PRICED = {
    "models": {
        "priced": {"provider": "up", "id": "input-1000-tokens-500", "kind": "chat", "price": PRICE},
        "cached": {"provider": "up", "id": "input-1000-tokens-500-cached-400", "kind": "chat", "price": PRICE},
        "silent": {"provider": "up", "id": "no_usage", "kind": "chat", "price": PRICE},
        "free": {"provider": "up", "id": "say-free", "kind": "chat", "price": {**PRICE, **dict.fromkeys(PRICE, 0)}},
        "narrow": {"provider": "tight", "id": "echo", "kind": "chat"},
    },
}


@pytest.fixture
async def client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    tight = {
        "adapter": "openai",
        "base_url": upstream.url,
        "parameters": {"drop": ["seed"], "clamp": {"temperature": [0.2, 0.5], "max_tokens": [1, 10]}},
    }
    config = write_providers_file(upstream.url, tmp_path, more={**PRICED, "providers": {"tight": tight}}, api_key_env="UP_KEY")
    async with serve(config, UP_KEY=UP_KEY) as server:
        yield Client(server)


async def test_a_choice_has_every_field(client: Client) -> None:
    before = int(time.time())
    choice = (await client.complete(model={"model": "cached", "label": "mine"})).choice

    assert set(choice) >= CHOICE
    assert (choice["index"], choice["entry"], choice["sample"]) == (0, 0, 0)
    assert (choice["model"], choice["label"]) == ("cached", "mine")
    assert choice["text"] == "This is input-1000-tokens-500-cached-400."
    assert isinstance(choice["created"], int)
    assert before <= choice["created"] <= time.time()
    assert (choice["finish_reason"], choice["logprobs"], choice["error"]) == ("stop", None, None)
    assert (choice["provider"], choice["upstream_model"]) == ("up", "input-1000-tokens-500-cached-400")
    usage = dict(choice["usage"])
    assert usage.pop("prediction_time_ms") >= 0
    assert usage == {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500, "cached_tokens": 400}
    assert (choice["ignored_parameters"], choice["adjusted_parameters"]) == ([], {})


async def test_the_whole_answer_has_every_field(client: Client) -> None:
    before = time.time()
    reply = await client.complete(model=["priced", "free"], metadata={"run": "7"})
    answer = reply.json

    assert reply.headers["Content-Type"] == "application/json"
    assert uuid.UUID(answer["id"]).version == 4
    assert answer["object"] == "text_completion"
    assert answer["created"].endswith("Z")
    assert before - 0.001 <= datetime.fromisoformat(answer["created"]).timestamp() <= time.time()
    assert answer["metadata"] == {"run": "7"}
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], usage["unknown"]) == (1010, 504, 1514, 0)
    assert usage["cached_tokens"] is None
    assert set(answer["timing"]) == {"total_ms", "overhead_ms"}
    assert usage["prediction_time_ms"] == answer["timing"]["total_ms"]


async def test_two_answers_have_two_ids(client: Client) -> None:
    assert (await client.complete(model="free")).json["id"] != (await client.complete(model="free")).json["id"]


@timed
async def test_each_choice_has_its_own_times_and_the_answer_has_the_total(client: Client) -> None:
    answer = (await client.complete(model=["up/sleep-0.2-tokens-20", "up/ok"])).json

    slow, quick = answer["choices"]
    assert 200 <= slow["usage"]["prediction_time_ms"] <= slow["timing"]["total_ms"] < 350
    assert quick["timing"]["total_ms"] < 150
    assert slow["timing"]["tokens_per_second"] == pytest.approx(20 / 0.2, rel=0.2)
    assert (slow["timing"]["ttft_ms"], slow["timing"]["attempts"], slow["timing"]["queued_ms"]) == (None, 1, 0)
    assert answer["timing"]["total_ms"] >= slow["timing"]["total_ms"]
    assert 0 <= answer["timing"]["overhead_ms"] <= answer["timing"]["total_ms"] - slow["timing"]["total_ms"] + 1
    assert all(isinstance(value, int) for value in answer["timing"].values())


@timed
async def test_waiting_for_our_limits_counts_as_queued_and_not_as_the_models_time(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, limits={"concurrency": 1})
    async with serve(config) as server:
        first, second = (await Client(server).complete(model=["up/sleep-0.2"] * 2)).choices

    assert first["timing"]["queued_ms"] < 50
    assert 180 <= second["timing"]["queued_ms"] < 350
    assert 190 <= second["usage"]["prediction_time_ms"] < 300
    assert second["timing"]["total_ms"] >= 390


async def test_cost_is_the_price_times_the_tokens(client: Client) -> None:
    answer = (await client.complete(model=["priced", "cached", "free"])).json

    priced, cached, free = (choice["cost_usd"] for choice in answer["choices"])
    assert priced == pytest.approx((1000 * 30 + 500 * 60) / 1e6)
    assert cached == pytest.approx((600 * 30 + 400 * 15 + 500 * 60) / 1e6)
    assert free == 0, "a price of nothing is known"
    assert answer["cost_usd"] == pytest.approx(priced + cached)
    assert answer["cost_unknown"] == 0
    assert {choice["cost_source"] for choice in answer["choices"]} == {"providers.json"}


async def test_an_unknown_price_is_null_and_counted(client: Client) -> None:
    some = (await client.complete(model=["priced", "up/ok", "up/say-x", "nobody"])).json
    none = (await client.complete(model=["up/ok"])).json

    assert [choice["cost_usd"] for choice in some["choices"]][1:] == [None, None, None]
    assert (some["cost_usd"], some["cost_unknown"]) == (some["choices"][0]["cost_usd"], 2)
    assert (none["cost_usd"], none["cost_unknown"]) == (None, 1)


async def test_unreported_usage_is_null_with_the_known_time(client: Client) -> None:
    answer = (await client.complete(model=["silent", "up/ok"])).json
    alone = (await client.complete(model="silent")).json

    assert answer["choices"][1]["usage"]["cached_tokens"] is None, "nor is a single count that was not reported"
    usage = answer["choices"][0]["usage"]
    assert isinstance(usage.pop("prediction_time_ms"), int)
    assert usage == dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"))
    assert answer["choices"][0]["timing"]["tokens_per_second"] is None
    assert answer["choices"][0]["cost_usd"] is None
    assert (answer["usage"]["total_tokens"], answer["usage"]["unknown"]) == (14, 1)
    assert (alone["usage"]["total_tokens"], alone["usage"]["prompt_tokens"], alone["usage"]["unknown"]) == (None, None, 1)


async def test_n_samples_are_calls_of_their_own_each_with_its_seed_usage_and_time(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model=["up/say-a", {"model": "up/echo-tokens-7", "n": 3, "seed": 2**63 - 2}], n=2, seed=5)

    places = [(choice["index"], choice["entry"], choice["sample"]) for choice in reply.choices]
    assert places == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 1, 2)]
    assert sorted(request.body["seed"] for request in upstream.requests_for("say-a")) == [5, 6]
    echoed = [json.loads(text) for text in reply.texts[2:]]
    assert [body["seed"] for body in echoed] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert not any("n" in request.body for request in upstream.requests)
    assert [choice["usage"]["completion_tokens"] for choice in reply.choices] == [4, 4, 7, 7, 7]
    assert all(choice["timing"]["attempts"] == 1 for choice in reply.choices)


async def test_samples_of_a_seeded_entry_differ_and_repeat(embedded_client: Client) -> None:
    once, again = [(await embedded_client.complete(model="local/ngram-5", seed=1, n=4, max_tokens=12)).texts for _ in range(2)]

    assert once == again
    assert len(set(once)) > 1


async def test_the_system_message_goes_to_chat_models(client: Client, embedded_client: Client) -> None:
    reply = await client.complete(model=["up/echo", "ok-text"], system="Be brief.")
    both = await embedded_client.complete(model="local/ngram-2", system="Be brief.", dry_run=True)

    chat, text = reply.choices
    assert json.loads(chat["text"])["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (chat["ignored_parameters"], text["ignored_parameters"]) == ([], ["system"])
    assert [message["role"] for message in both.json["calls"][0]["messages"]] == ["system", "user"]


async def test_earlier_messages_come_before_the_prompt_for_each_entry_its_own(client: Client) -> None:
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    own = [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "yours"}]
    entries = ["up/echo", {"model": "up/echo", "messages": own}, {"model": "up/echo", "messages": None}, "ok-text"]
    reply = await client.complete(model=entries, prompt="three", system="be brief", messages=turns)

    *answered, refused = reply.choices
    asked = [json.loads(choice["text"])["messages"] for choice in answered]
    last = {"role": "user", "content": "three"}
    assert asked == [[{"role": "system", "content": "be brief"}, *earlier, last] for earlier in (turns, own, [])]
    assert (refused["error"]["code"], refused["error"]["param"]) == ("unsupported_endpoint", "messages")


async def test_parameters_that_a_provider_cannot_take_are_ignored_or_adjusted_and_reported(client: Client) -> None:
    parameters: dict[str, Any] = {"seed": 1, "temperature": 0.9, "max_tokens": 20, "top_p": 0.5}
    narrow, wide = (await client.complete(model=["narrow", "up/echo"], **parameters)).choices

    sent = json.loads(narrow["text"])
    assert (sent["temperature"], sent["max_tokens"], sent["top_p"]) == (0.5, 10, 0.5)
    assert "seed" not in sent
    assert narrow["ignored_parameters"] == ["seed"]
    assert narrow["adjusted_parameters"] == {
        "temperature": {"asked": 0.9, "sent": 0.5},
        "max_tokens": {"asked": 20, "sent": 10},
    }
    assert (wide["ignored_parameters"], wide["adjusted_parameters"]) == ([], {})


@pytest.mark.parametrize(("parameters", "param"), [({"seed": 1}, "seed"), ({"temperature": 0.9}, "temperature")])
async def test_strict_parameters_fail_the_entry_that_cannot_take_them(
    client: Client, upstream: Upstream, parameters: dict[str, Any], param: str
) -> None:
    narrow, wide = (await client.complete(model=["narrow", "up/echo"], strict_parameters=True, **parameters)).choices
    alone = await client.complete(model="narrow", strict_parameters=True, **parameters)

    assert (narrow["error"]["code"], narrow["error"]["param"]) == ("unsupported_parameter", param)
    assert wide["error"] is None
    assert alone.status == 400
    assert alone.error["code"] == "unsupported_parameter"
    assert len(upstream.requests) == 1


async def test_a_dry_run_lists_the_calls_and_makes_none(client: Client, upstream: Upstream) -> None:
    entries = ["narrow", {"model": "ok-text", "label": "t"}, "nobody", "local/ngram-2"]
    reply = await client.complete(model=entries, dry_run=True, n=2, seed=1, temperature=0.9, stream=True)

    calls = reply.json["calls"]
    assert (reply.status, len(calls)) == (200, 8)
    assert [call["index"] for call in calls] == list(range(8))
    assert [call["label"] for call in calls][2:4] == ["t", "t"]
    narrow, text, unknown, local = calls[1], calls[3], calls[5], calls[7]
    assert narrow["messages"] == [{"role": "user", "content": "hi"}]
    assert (narrow["provider"], narrow["upstream_model"]) == ("tight", "echo")
    assert narrow["ignored_parameters"] == ["seed"]
    assert narrow["adjusted_parameters"]["temperature"] == {"asked": 0.9, "sent": 0.5}
    assert narrow["parameters"] == {"temperature": 0.5}
    assert (text["prompt"], text["messages"], text["parameters"]["seed"]) == ("hi", None, 2)
    assert unknown["error"]["code"] == "model_not_found"
    assert local["parameters"]["seed"] == 2
    assert not upstream.requests


async def test_logprobs_are_the_four_legacy_arrays(embedded_client: Client) -> None:
    choice = (
        await embedded_client.complete(model="local/ngram-3", prompt="The list", logprobs=2, max_tokens=6, echo=True, seed=1)
    ).choice

    logprobs = choice["logprobs"]
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert len({len(array) for array in logprobs.values()}) == 1
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert logprobs["token_logprobs"][0] is None
    assert all(logprob <= 0 for logprob in logprobs["token_logprobs"][1:])


async def test_max_tokens_0_makes_no_call(client: Client, upstream: Upstream) -> None:
    plain = (await client.complete(model="up/ok", max_tokens=0)).choice
    echoed = (await client.complete(model="ok-text", max_tokens=0, echo=True)).choice

    assert (plain["text"], plain["finish_reason"], plain["usage"]["completion_tokens"]) == ("", "length", 0)
    assert echoed["text"] == "hi"
    assert not upstream.requests


@pytest.mark.parametrize(("finish", "reason", "native"), [("length", "length", None), ("odd_one", None, "odd_one")])
async def test_a_finish_reason_is_never_invented(client: Client, finish: str, reason: str | None, native: str | None) -> None:
    choice = (await client.complete(model=f"up/finish-{finish}")).choice

    assert (choice["finish_reason"], choice["native_finish_reason"], choice["error"]) == (reason, native, None)
