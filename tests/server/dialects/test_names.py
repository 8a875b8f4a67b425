"""`model` of `POST /v1/completion`: how it may be written, and what a name stands for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, Reply
from tests.support.server import UP_KEY, serve
from tests.support.upstream.server import Upstream

MODELS: dict[str, dict[str, Any]] = {
    "models": {
        "Big-Model": {"provider": "up", "id": "say-big", "kind": "chat", "aliases": ["huge", "Vendor/Big"]},
        "plain": {"provider": "up", "id": "echo-tokens-5", "kind": "text"},
        "locked": {"provider": "needy", "id": "x", "kind": "chat"},
        "gone": {"provider": "up", "id": "ok", "kind": "chat", "deprecated_on": "2020-01-02", "successor": "Big-Model"},
    },
    "providers": {
        "needy": {"adapter": "openai", "base_url": "https://needy.invalid/v1", "api_key_env": ["NEEDY_KEY", "NEEDY_TOKEN"]},
    },
    "sets": {"Pair": ["Big-Model", "local/ngram-2"], "all-gone": ["gone"]},
}


@pytest.fixture
async def client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    config = write_providers_file(upstream.url, tmp_path, more=MODELS, api_key_env="UP_KEY", retries={"attempts": 1})
    async with serve(config, UP_KEY=UP_KEY) as server:
        yield Client(server)


def list_models(reply: Reply) -> list[str]:
    return [choice["model"] for choice in reply.choices]


async def test_a_name_is_one_entry(client: Client) -> None:
    reply = await client.complete(model="up/ok")

    assert reply.status == 200
    assert reply.choice["model"] == reply.choice["label"] == "up/ok"
    assert reply.choice["text"] == "This is ok."


async def test_an_object_is_one_entry_with_parameters_of_its_own(client: Client) -> None:
    reply = await client.complete(model={"model": "up/echo", "label": "mine", "temperature": 0.5}, temperature=0.1, top_p=0.9)

    assert (reply.choice["model"], reply.choice["label"]) == ("up/echo", "mine")
    sent = json.loads(reply.choice["text"])
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.9)


async def test_a_list_is_an_entry_each_in_its_order(client: Client) -> None:
    reply = await client.complete(model=["up/sleep-0.1", {"model": "up/ok"}, "up/say-yes"])

    assert list_models(reply) == ["up/sleep-0.1", "up/ok", "up/say-yes"]
    assert [choice["entry"] for choice in reply.choices] == [choice["index"] for choice in reply.choices] == [0, 1, 2]
    assert reply.texts == ["This is sleep-0.1.", "This is ok.", "yes"]


async def test_null_takes_a_parameter_back_for_its_entry_alone(client: Client) -> None:
    entries = [
        {"model": "up/echo", "temperature": None, "stop": None, "max_new_tokens": None},
        {"model": "up/echo", "max_new_tokens": 7},
        "up/echo",
    ]
    reply = await client.complete(model=entries, temperature=0.3, stop=["!"], max_tokens=9)

    taken_back, changed, plain = (json.loads(text) for text in reply.texts)
    assert not {"temperature", "stop", "max_tokens"} & set(taken_back)
    assert (changed["temperature"], changed["stop"], changed["max_tokens"]) == (0.3, ["!"], 7)
    assert (plain["temperature"], plain["stop"], plain["max_tokens"]) == (0.3, ["!"], 9)


async def test_the_same_model_twice_is_two_answers(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model=["up/echo", {"model": "up/echo", "label": "hot", "temperature": 1}, "up/echo"])

    assert list_models(reply) == ["up/echo"] * 3
    assert [choice["label"] for choice in reply.choices] == ["up/echo", "hot", "up/echo"]
    assert len(upstream.requests_for("echo")) == 3


async def test_a_catalogue_name_and_its_aliases_are_known_in_any_case(client: Client) -> None:
    reply = await client.complete(model=["big-model", "HUGE", "vendor/big", "Big-Model"])

    assert list_models(reply) == ["big-model", "HUGE", "vendor/big", "Big-Model"]
    assert {choice["upstream_model"] for choice in reply.choices} == {"say-big"}
    assert reply.texts == ["big"] * 4


async def test_a_set_is_its_members_with_the_overrides_and_label_of_its_entry(client: Client) -> None:
    reply = await client.complete(model=["up/ok", {"model": "pair", "label": "p", "max_tokens": 3}, "PAIR"], seed=1)

    assert list_models(reply) == ["up/ok", "Big-Model", "local/ngram-2", "Big-Model", "local/ngram-2"]
    assert [choice["entry"] for choice in reply.choices] == [0, 1, 2, 3, 4]
    assert [choice["label"] for choice in reply.choices][1:] == [
        "p: Big-Model",
        "p: local/ngram-2",
        "Big-Model",
        "local/ngram-2",
    ]
    assert reply.choices[2]["usage"]["completion_tokens"] == 3
    assert reply.choices[4]["usage"]["completion_tokens"] > 3


async def test_provider_and_id_call_any_id_of_a_configured_provider(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model=["up/say-anything", "local/ngram-3"])

    assert reply.texts[0] == "anything"
    assert [choice["provider"] for choice in reply.choices] == ["up", "local"]
    assert upstream.requests[0].body["model"] == "say-anything"


async def test_a_chat_model_gets_messages_and_a_text_model_the_prompt(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model=["up/echo", "plain"], prompt="Once upon")

    chat, text = (json.loads(text) for text in reply.texts)
    assert chat["messages"] == [{"role": "user", "content": "Once upon"}]
    assert text["prompt"] == "Once upon"
    assert {request.path for request in upstream.requests} == {"/v1/chat/completions", "/v1/completions"}


async def test_an_unknown_name_alone_is_404_with_near_names(client: Client) -> None:
    reply = await client.complete(model="bigmodel")

    assert reply.status == 404
    assert reply.error["code"] == "model_not_found"
    assert reply.error["param"] == "model"
    assert reply.error["type"] == "invalid_request_error"
    assert "`bigmodel`" in reply.error["message"]
    assert "did you mean `Big-Model`" in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"


async def test_an_unknown_name_fails_its_own_entry_beside_others(client: Client) -> None:
    reply = await client.complete(model=["up/ok", "hugee", "up/say-yes"])

    good, unknown, also_good = reply.choices
    assert reply.status == 200
    assert (good["error"], also_good["error"]) == (None, None)
    assert unknown["finish_reason"] == "error"
    assert unknown["error"]["code"] == "model_not_found"
    assert "`huge`" in unknown["error"]["message"]
    assert (unknown["text"], unknown["provider"], unknown["upstream_model"]) == ("", None, None)
    assert (unknown["index"], unknown["entry"]) == (1, 1)


async def test_a_name_unlike_all_others_gets_no_suggestion(client: Client) -> None:
    reply = await client.complete(model="zzzzqqqq")

    assert "did you mean" not in reply.error["message"]
    assert "/v1/models" in reply.error["message"]


async def test_a_model_without_its_key_names_the_variables(client: Client) -> None:
    beside = await client.complete(model=["locked", "up/ok"])
    alone = await client.complete(model=["locked", "needy/other"])

    assert beside.status == 200
    error = beside.choices[0]["error"]
    assert error["code"] == "provider_not_configured"
    assert "`NEEDY_KEY` or `NEEDY_TOKEN`" in error["message"]
    assert alone.status == 503
    assert alone.error["code"] == "provider_not_configured"
    assert alone.headers["x-should-retry"] == "false", "nobody sets a key between two attempts"
    assert [detail["attempts"] for detail in alone.error["details"]] == [0, 0]


async def test_a_retired_model_is_not_replaced_by_another(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model="gone")

    assert reply.status == 404
    assert reply.error["code"] == "model_retired"
    assert "2020-01-02" in reply.error["message"]
    assert "`Big-Model`" in reply.error["message"]
    assert not upstream.requests


async def test_one_to_64_entries_are_allowed(client: Client) -> None:
    most = await client.complete(model=["local/ngram-2"] * 64, max_tokens=1)
    more = await client.complete(model=["local/ngram-2"] * 65, max_tokens=1)
    none = await client.complete(model=[])

    assert (most.status, len(most.choices)) == (200, 64)
    assert (more.status, more.params) == (400, ["model"])
    assert (none.status, none.params) == (400, ["model"])


async def test_more_calls_than_the_server_allows_are_refused_whole(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(model=["up/ok"] * 3, n=86)

    assert reply.status == 400
    assert reply.error["code"] == "too_many_calls"
    assert "258" in reply.error["message"]
    assert "256" in reply.error["message"]
    assert not upstream.requests
