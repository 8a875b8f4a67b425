"""`/v1/responses`: what is passed on, the items of the answers, the events of a stream, and responses from the history."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fanout.core.schema import Answer
from fanout.providers.openai.response_items import convert_fields
from fanout.rendering.openai.output_items import render_answer_items
from fanout.server.dialects.openai import responses
from tests.support.builders.settings import write_providers_file
from tests.support.client import Reply
from tests.support.dialects import CannedUpstream, build_delta, post, serve_canned
from tests.support.server import Server, serve
from tests.support.shapes import check_answer
from tests.support.upstream.server import Upstream

PATH = "/v1/responses"
LOCAL = "local/ngram-2"
IMAGE = "data:image/png;base64,AAAA"
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


async def respond(server: Server, model: Any = "up/echo", question: Any = "hi", **fields: Any) -> Reply:
    got = await post(server, PATH, model=model, input=question, **fields)
    check_answer(("POST", PATH), got)
    return got


async def fetch(server: Server, id_: str, headers: Mapping[str, str] | None = None) -> Reply:
    async with server.session.get(f"{PATH}/{id_}", headers=headers) as response:
        got = Reply(response.status, response.headers, await response.read())
    check_answer(("GET", f"{PATH}/{{id}}"), got)
    return got


def get_texts(got: Reply) -> list[str]:
    """Return the texts of all items, in order."""
    parts = [part for item in got.json["output"] if item["type"] == "message" for part in item["content"]]
    return [part["text"] for part in parts if part["type"] == "output_text"]


def read_sent(got: Reply) -> list[Any]:
    """Return the bodies that an `echo` received."""
    return [json.loads(text) for text in get_texts(got)]


class TestRequests:
    async def test_a_provider_receives_a_chat_of_everything(self, dialect_server: Server) -> None:
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": IMAGE}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}
            ]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        ]  # fmt: skip
        got = await respond(
            dialect_server,
            question=items,
            instructions="Be brief.",
            max_output_tokens=9,
            tools=[TOOL],
            tool_choice={"type": "function", "name": "weather"},
            text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}, "verbosity": "low"},
            reasoning={"effort": "low", "summary": "auto"},
            parallel_tool_calls=False,
            store=False,
            include=["reasoning.encrypted_content", "message.output_text.logprobs"],
            top_logprobs=2,
        )
        (sent,) = read_sent(got)
        assert sent["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": IMAGE}}
            ]},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}], "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}},
            ]},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            {"role": "tool", "content": [{"type": "text", "text": "sun"}], "tool_call_id": "c2"},
        ]  # fmt: skip
        nested = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
        others = {name: value for name, value in sent.items() if name not in ("messages", "model", "stream")}
        assert others == {
            "max_completion_tokens" if "max_completion_tokens" in sent else "max_tokens": 9,
            "tools": [{"type": "function", "function": nested}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "verbosity": "low",
            "reasoning_effort": "low",
            "parallel_tool_calls": False,
            "logprobs": True,
            "top_logprobs": 2,
        }
        assert (got.json["tools"], got.json["instructions"], got.json["store"]) == ([TOOL], "Be brief.", False)

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"question": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
            ({"question": [{"role": "user"}]}, "input[0]"),
            ({"question": []}, "input"),
            ({"question": [{"role": "user", "content": [{"type": "input_image", "image_url": "x", "file_id": "f"}]}]}, None),
            ({"background": True}, "background"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"prompt": {"id": "p"}}, "prompt"),
            ({"messages": []}, "messages"),
            ({"truncation": "auto"}, "truncation"),
            ({"store": True}, "store"),
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
            ({"model": {"model": LOCAL, "instructions": "x"}}, "model[0].instructions"),
            ({"top_logprobs": 21}, "top_logprobs"),
        ],
    )
    async def test_a_wrong_field_is_named(self, dialect_server: Server, fields: dict[str, Any], param: str | None) -> None:
        got = await respond(dialect_server, **{"model": LOCAL, **fields})
        assert (got.status, got.error["param"]) == (400, param or "input[0].content[0]")


@pytest.fixture
async def keeping_server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that keeps texts, for two accounts."""
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY="full") as server:
        yield server


class TestAnswers:
    async def test_every_model_has_items_and_facts_and_a_failure_only_facts(self, dialect_server: Server) -> None:
        got = await respond(dialect_server, [LOCAL, "nobody", {"model": LOCAL, "label": "short", "max_output_tokens": 1}])
        assert got.status == 200
        assert [choice["label"] for choice in got.json["choices"]] == [LOCAL, "nobody", "short"]
        assert {item["index"] for item in got.json["output"]} == {0, 2}
        assert [choice["error"] and choice["error"]["code"] for choice in got.json["choices"]] == [
            None,
            "model_not_found",
            None,
        ]
        assert got.json["usage"]["total_tokens"] == sum(
            choice["usage"]["total_tokens"] for choice in got.json["choices"] if choice["usage"]
        )

    async def test_parts_of_the_usage_that_nobody_reported_are_null(self, keeping_server: Server) -> None:
        got = await respond(keeping_server, "up/ok")
        fetched = await fetch(keeping_server, got.json["id"])
        for usage in (got.json["usage"], fetched.json["usage"]):
            assert usage["input_tokens"] is not None
            assert (usage["input_tokens_details"], usage["output_tokens_details"]) == (None, None)
        known = (await respond(keeping_server, LOCAL, max_output_tokens=1)).json["usage"]
        assert known["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
        assert known["output_tokens_details"] == {"reasoning_tokens": 0}

    async def test_an_answer_that_was_cut_is_incomplete(self, dialect_server: Server) -> None:
        got = await respond(dialect_server, LOCAL, "The return statement", max_output_tokens=1, seed=1)
        assert (got.json["status"], got.json["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert got.json["output"][-1]["status"] == "incomplete"

    async def test_a_request_whose_calls_all_fail_is_an_error(self, dialect_server: Server) -> None:
        got = await respond(dialect_server, ["nobody"])
        assert (got.status, got.error["code"]) == (404, "model_not_found")

    async def test_reasoning_refusals_sources_and_calls_are_items(self, tmp_path: Path) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        source = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
        message = {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "refusal": "no", "tool_calls": [call]}
        whole = {"id": "c", "model": "m", "choices": [{"index": 0, "message": {**message, "annotations": [source]}}]}
        async with serve_canned(tmp_path, CannedUpstream(whole)) as server:
            got = await respond(server, "up/m")
        assert [item["type"] for item in got.json["output"]] == ["reasoning", "message", "function_call"]
        reasoning, said, called = got.json["output"]
        assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
        assert [part["type"] for part in said["content"]] == ["output_text", "refusal"]
        assert said["content"][0]["annotations"] == [{"type": "url_citation", "url": "https://a.example", "title": "A"}]
        assert (called["call_id"], called["name"], called["arguments"]) == ("c1", "weather", "{}")


CUSTOM_TOOL = {"type": "custom", "name": "sql", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /./"}}
CUSTOM_ITEMS = [
    {"role": "user", "content": "How many?"},
    {"type": "custom_tool_call", "id": "ct_1", "call_id": "c1", "name": "sql", "input": "SELECT 1"},
    {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"},
]


async def test_custom_tools_and_their_calls_reach_providers_of_both_formats(dialect_server: Server) -> None:
    choice = {"type": "custom", "name": "sql"}
    got = await respond(dialect_server, question=CUSTOM_ITEMS, tools=[CUSTOM_TOOL], tool_choice=choice)
    (sent,) = read_sent(got)
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /./"}}
    assert sent["tools"] == [{"type": "custom", "custom": {"name": "sql", "format": grammar}}]
    assert sent["tool_choice"] == {"type": "custom", "custom": {"name": "sql"}}
    assert sent["messages"][1]["tool_calls"] == [{"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]
    assert sent["messages"][2] == {"role": "tool", "content": "1", "tool_call_id": "c1"}
    assert convert_fields({"tools": sent["tools"]})["tools"] == [CUSTOM_TOOL]


class TestStreams:
    async def test_the_events_of_each_item_follow_each_other_by_their_published_names(self, tmp_path: Path) -> None:
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a"'}}
        chunks = [
            build_delta(role="assistant", reasoning_content="hm"),
            build_delta(content="He"),
            build_delta(content="y"),
            build_delta(tool_calls=[call]),
            build_delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
            build_delta("tool_calls"),
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=chunks)) as server:
            got = await respond(server, "up/m", stream=True)
        assert [event["sequence_number"] for event in got.events] == list(range(len(got.events)))
        assert [event["type"].removeprefix("response.") for event in got.events] == [
            *("created", "in_progress"),
            *("output_item.added", "reasoning_text.delta", "reasoning_text.done", "output_item.done"),
            *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
            *("output_text.done", "content_part.done", "output_item.done"),
            *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
            *("function_call_arguments.done", "output_item.done"),
            "completed",
        ]
        ended = got.events[-1]["response"]
        assert ended["output"] == [event["item"] for event in got.events if event["type"] == "response.output_item.done"]
        assert [item["type"] for item in ended["output"]] == ["reasoning", "message", "function_call"]
        assert (ended["output"][2]["arguments"], ended["output"][1]["content"][0]["text"]) == ('{"a":1}', "Hey")
        assert got.events[-2]["choice"]["finish_reason"] == "tool_calls"

    async def test_a_call_of_a_custom_tool_is_an_item_of_its_own_kind(self, tmp_path: Path) -> None:
        """As is one whose name comes in pieces a call of the whole name."""
        custom = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
        named = {"index": 1, "id": "c2", "type": "function", "function": {"name": "get_", "arguments": ""}}
        chunks = [
            build_delta(tool_calls=[custom, named]),
            build_delta(tool_calls=[{"index": 0, "custom": {"input": " 1"}}, {"index": 1, "function": {"name": "weather"}}]),
            build_delta("tool_calls"),
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=chunks)) as server:
            got = await respond(server, "up/m", stream=True)
        pieces = [event for event in got.events if "custom_tool_call_input" in event["type"]]
        assert [event.get("delta") or event["input"] for event in pieces] == ["SELECT", " 1", "SELECT 1"]
        ended = got.events[-1]["response"]
        output = [(item["type"], item["name"], item.get("input"), item.get("arguments")) for item in ended["output"]]
        assert output == [("custom_tool_call", "sql", "SELECT 1", None), ("function_call", "get_weather", None, "{}")]
        calls = (
            {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
            {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
        )
        assert render_answer_items(ended["id"], 0, Answer("", tool_calls=calls), "tool_calls") == ended["output"]

    async def test_a_stream_holds_the_same_as_the_whole_answer(self, dialect_server: Server) -> None:
        fields = {"max_output_tokens": 5, "seed": 3, "n": 2}
        whole = await respond(dialect_server, [LOCAL, "nobody", LOCAL], "The", **fields)
        got = await respond(dialect_server, [LOCAL, "nobody", LOCAL], "The", stream=True, **fields)
        ended = got.events[-1]["response"]

        def pair(response: Mapping[str, Any]) -> Sequence[Any]:
            return sorted((item["index"], item["content"], item["status"]) for item in response["output"])

        assert pair(ended) == pair(whole.json)
        assert [choice["error"] for choice in ended["choices"]] == [choice["error"] for choice in whole.json["choices"]]
        assert ended["usage"] == whole.json["usage"]

    async def test_a_stream_that_breaks_keeps_what_had_arrived_and_names_the_failure(self, dialect_server: Server) -> None:
        got = await respond(dialect_server, ["up/cut", LOCAL], "The", stream=True, max_output_tokens=2)
        ended = got.events[-1]["response"]
        assert ended["choices"][0]["error"]
        assert [item["status"] for item in ended["output"] if item["index"] == 0] in ([], ["incomplete"])
        assert any(item["index"] == 1 for item in ended["output"])


class TestHistory:
    async def test_a_response_is_fetched_as_it_was(self, keeping_server: Server) -> None:
        made = await respond(keeping_server, [LOCAL, "nobody"], "The", instructions="Be brief.", metadata={"a": "b"}, seed=1)
        got = await fetch(keeping_server, made.json["id"])
        assert got.status == 200
        facts = made.json.keys() - {"choices", "timing"}
        assert {name: got.json[name] for name in facts} == {name: made.json[name] for name in facts}
        assert [choice["finish_reason"] for choice in got.json["choices"]] == [
            choice["finish_reason"] for choice in made.json["choices"]
        ]

    async def test_a_conversation_goes_on_from_a_response(self, keeping_server: Server) -> None:
        first = await respond(keeping_server, "up/echo", "one", instructions="only the first")
        second = await respond(keeping_server, "up/echo", "two", previous_response_id=first.json["id"])
        third = await respond(keeping_server, "up/echo", "three", previous_response_id=second.json["id"])
        (sent,) = read_sent(third)
        assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user", "assistant", "user"]
        assert [sent["messages"][turn]["content"] for turn in (0, 1, 2, 4)] == ["one", get_texts(first)[0], "two", "three"]

    async def test_a_conversation_has_a_bound_on_its_messages(
        self, keeping_server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(responses, "MAX_PARTS", 5)
        parts = [{"type": "input_text", "text": text} for text in ("a", "b")]
        first = await respond(keeping_server, "up/echo", [{"role": "user", "content": parts}])
        second = await respond(keeping_server, "up/echo", "two", previous_response_id=first.json["id"])
        third = await respond(keeping_server, "up/echo", "three", previous_response_id=second.json["id"])
        assert (second.status, third.status, third.error["param"]) == (200, 400, "previous_response_id")
        assert "too long" in third.error["message"]

    async def test_one_answer_is_gone_on_from_and_not_several(self, keeping_server: Server) -> None:
        several = await respond(keeping_server, [LOCAL, LOCAL], "The")
        got = await respond(keeping_server, LOCAL, "x", previous_response_id=several.json["id"])
        assert (got.status, got.error["param"]) == (400, "previous_response_id")
        assert "has 2 answers" in got.error["message"]

    async def test_nothing_is_kept_of_a_response_whose_caller_wants_that(self, keeping_server: Server) -> None:
        made = await respond(keeping_server, LOCAL, "The secret", store=False)
        assert made.json["store"] is False
        assert (await fetch(keeping_server, made.json["id"])).status == 404
        async with keeping_server.session.get(f"/v1/comparisons/{made.json['id']}") as response:
            assert response.status == 200, "its figures are kept"
            assert "secret" not in await response.text()

    async def test_a_response_of_another_endpoint_or_of_nobody_is_not_found(self, keeping_server: Server) -> None:
        chat = await post(keeping_server, "/v1/chat/completions", model=LOCAL, messages=[{"role": "user", "content": "The"}])
        assert [(await fetch(keeping_server, id_)).status for id_ in (chat.json["id"], "resp_1")] == [404, 404]
