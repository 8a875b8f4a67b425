"""Fusions over HTTP: the fused answer, each member's beside it, and the cost of all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import UP_KEY, serve
from tests.support.upstream.server import Upstream

PRICE = {"input_usd_per_mtok": 100_000, "output_usd_per_mtok": 0}
MORE: dict[str, dict[str, Any]] = {
    "models": {
        "a": {"provider": "up", "id": "say-apple", "kind": "chat", "price": PRICE},
        "b": {"provider": "up", "id": "say-banana", "kind": "chat", "price": PRICE},
        "c": {"provider": "up", "id": "echo", "kind": "chat", "price": PRICE},
        "free": {"provider": "up", "id": "say-free", "kind": "chat"},
    },
    "sets": {"fruit": ["a", "b"]},
}
FUSION = {"fusion": {"of": ["a", "b"], "by": "c"}}
MIX = "fusion(a, b by c)"
CHAT = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
async def client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    config = write_providers_file(upstream.url, tmp_path, more=MORE, api_key_env="UP_KEY")
    async with serve(config, UP_KEY=UP_KEY) as server:
        yield Client(server)


async def test_an_answer_has_the_fused_choice_its_members_and_the_cost_of_all(client: Client) -> None:
    body = (await client.complete(model=["free", FUSION])).json
    free, fused, first, second = body["choices"]

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [choice["label"] for choice in body["choices"]] == ["free", "fusion(a, b by c)", "a", "b"]
    assert [choice.get("is_member") for choice in body["choices"]] == [None, None, True, True]
    assert fused["model"] == "c"
    assert "apple" in fused["text"]
    assert fused["cost_usd"] == pytest.approx(1)
    assert fused["fusion"] == {
        "of": [2, 3],
        "members": [
            {"entry": 2, "index": 2, "label": "a", "left_out": None},
            {"entry": 3, "index": 3, "label": "b", "left_out": None},
        ],
        "prompt": "1",
        "cost_usd": pytest.approx(3),
        "cost_unknown": 0,
    }
    assert "fusion" not in free
    assert (first["text"], second["text"]) == ("apple", "banana")
    assert (body["cost_usd"], body["cost_unknown"]) == (pytest.approx(3), 1)


async def test_unknown_costs_of_members_are_counted_and_not_taken_for_nothing(client: Client) -> None:
    (fused, *_) = (await client.complete(model="fusion(a, free by free)")).choices

    assert fused["fusion"]["cost_usd"] == pytest.approx(1)
    assert fused["fusion"]["cost_unknown"] == 2


@pytest.mark.parametrize("history", ["full", "usage"])
async def test_the_history_keeps_whose_answers_were_fused(history: str, upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, more=MORE, api_key_env="UP_KEY")
    async with serve(config, UP_KEY=UP_KEY, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY=history) as server:
        client = Client(server)
        entry = {"fusion": {"of": ["a", "up/400-apple"], "by": "c"}}
        body = (await client.complete(model=["free", entry, {"fusion": {"of": ["b"] * 2, "by": "c"}, "label": "twice"}])).json
        past = (await client.send("GET", f"/v1/comparisons/{body['id']}")).json
        ballots = [await client.send("POST", f"/v1/comparisons/{body['id']}/ballots", {"kind": "answer", "rater": "r"})]
        while ballots[-1].status == 201:
            await client.send("POST", "/v1/votes", {"ballot_id": ballots[-1].json["id"], "score": 1})
            ballots.append(await client.send("POST", f"/v1/comparisons/{body['id']}/ballots", {"kind": "answer", "rater": "r"}))

    assert [choice.get("is_member") for choice in past["choices"]] == [None, None, None, True, True, True, True]
    left_out = body["choices"][1]["fusion"]["members"][1].pop("left_out")
    assert left_out
    kept = past["choices"][1]["fusion"]["members"][1].pop("left_out")
    assert kept == (left_out if history == "full" else "texts are not kept")
    assert [choice.get("fusion") for choice in past["choices"]] == [choice.get("fusion") for choice in body["choices"]]
    assert len(ballots) == 6, "of the two equal members one is on ballots, and the one that failed is not"


async def test_the_members_of_a_set_are_members_of_a_fusion_under_its_own_label(client: Client) -> None:
    entry = {"fusion": {"of": ["fruit"], "by": "c", "template": "{{count}} ANSWERS {{answers}}"}, "label": "mix", "seed": 4}
    (fused, *members) = (await client.complete(model=entry)).choices

    assert (fused["label"], [member["label"] for member in members]) == ("mix", ["a", "b"])
    assert "2 ANSWERS ---" in fused["text"]
    assert fused["fusion"]["prompt"].startswith("sha256:")
    assert json.loads(fused["text"])["seed"] == 4


async def test_a_stream_sends_members_and_fusion_each_with_its_index(client: Client) -> None:
    stream = await client.stream(model=FUSION)
    ends = {end["index"]: end for end in stream.ends}

    assert "apple" in stream.text(0)
    assert (stream.text(1), stream.text(2)) == ("apple", "banana")
    assert [member["left_out"] for member in ends[0]["fusion"]["members"]] == [None, None]
    assert (ends[1]["is_member"], ends[2]["is_member"]) == (True, True)


async def test_a_dry_run_shows_the_question_of_a_fusion_with_a_place_for_each_answer(client: Client) -> None:
    (fused, *members) = (await client.complete(model=FUSION, dry_run=True)).json["calls"]

    assert "(the answer of entry 1)" in fused["messages"][-1]["content"]
    assert [member["label"] for member in members] == ["a", "b"]


async def test_a_chat_completion_has_the_fused_answer_first(client: Client) -> None:
    answer = (await client.send("POST", "/v1/chat/completions", {"model": "fusion(a, b by c)", "messages": CHAT})).json

    assert answer["model"] == "fusion(a, b by c)"
    assert "banana" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["fusion"]["of"] == [1, 2]
    assert [choice["message"]["content"] for choice in answer["choices"][1:]] == ["apple", "banana"]


async def test_members_of_a_chat_have_parameters_of_their_own_and_the_schema_goes_to_all(client: Client) -> None:
    member = {"model": "c", "temperature": 0.5, "reasoning_effort": "low"}
    entry = {"fusion": {"of": [member, "a"], "by": "c"}, "max_completion_tokens": 9}
    format_ = {"type": "json_object"}
    sent = {"model": [entry], "messages": CHAT, "response_format": format_, "tools": [_TOOL]}
    answer = (await client.send("POST", "/v1/chat/completions", sent)).json
    fused, echoed = (json.loads(choice["message"]["content"]) for choice in answer["choices"][:2])

    assert (echoed["temperature"], echoed["reasoning_effort"], echoed["response_format"]) == (0.5, "low", format_)
    assert (fused["max_tokens" if "max_tokens" in fused else "max_completion_tokens"], fused["response_format"]) == (9, format_)
    assert "tools" in echoed
    assert "tools" not in fused
    assert answer["choices"][0]["ignored_parameters"] == ["tools"]


_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


async def test_a_response_has_the_fused_answer(client: Client) -> None:
    answer = (await client.send("POST", "/v1/responses", {"model": FUSION, "input": "What is it?"})).json

    assert answer["model"] == "fusion(a, b by c)"
    assert "apple" in json.dumps(answer["output"])


async def test_text_completions_have_a_fusion_for_every_prompt(client: Client) -> None:
    answer = (await client.send("POST", "/v1/completions", {"model": MIX, "prompt": ["one", "two"], "n": 2})).json
    fused = [choice for choice in answer["choices"] if choice.get("fusion")]

    assert [(choice["prompt_index"], choice["sample"]) for choice in fused] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [member["index"] for member in fused[2]["fusion"]["members"]] == [8, 10]
    assert "two" in fused[2]["text"]


async def test_how_many_entries_must_answer_counts_no_members(client: Client) -> None:
    reply = await client.complete(model=[FUSION, "a"], return_when=3)

    assert reply.status == 400
    assert "1 to 2, the number of entries" in reply.error["message"]


async def test_a_fusion_at_scales_endpoint_is_refused_with_a_way_out(client: Client) -> None:
    reply = await client.send("POST", "/v4/completions", {"model": MIX, "prompt": "x"})

    assert reply.status == 422
    assert "names several models" in json.dumps(reply.json)


async def test_what_is_wrong_with_a_fusion_is_named_at_its_place(client: Client) -> None:
    nested = {"fusion": {"of": ["a", FUSION], "by": "c"}}
    wrong = [nested, {"fusion": {"of": ["a", "b"]}}, {"fusion": {"of": ["a", "b"], "by": "c"}, "model": "a"}, {"label": "x"}]
    reply = await client.complete(model=wrong)

    assert {detail["param"]: detail["message"] for detail in reply.error["details"]} == {
        "model[0].fusion.of": "a fusion cannot be a member of a fusion",
        "model[1].fusion.by": "is required",
        "model[2].model": "stands beside `fusion`: an entry has one of the two",
        "model[3].model": "is required",
    }


async def test_a_text_that_is_no_fusion_is_refused_with_the_form(client: Client) -> None:
    reply = await client.complete(model="fusion(a, b, c)")

    assert reply.status == 400
    assert "write `fusion(a, b by c)`" in reply.error["message"]
