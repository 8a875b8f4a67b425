"""`POST /v1/chat/completions`, field by field: messages, parameters, what is passed on, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanout.core.sampling import SAMPLING_NAMES
from tests.support.dialects import ALL_PARAMETERS, CHAT, HI, CannedUpstream, build_delta, chat, post, serve_canned, serve_hosts
from tests.support.server import Server
from tests.support.upstream.server import Upstream

LOCAL = "local/ngram-2"
INT64 = 2**63
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "max_tokens": ([0, 1], [-1, 1.5, "1"]),
    "max_completion_tokens": ([0, 1], [-1, 1.5, "1"]),
    "temperature": ([0, 2], [-0.1, 2.1, "1"]),
    "top_p": ([0, 1], [-0.1, 1.1]),
    "top_k": ([-1, 5], [-2]),
    "n": ([1, 3], [0, 129]),
    "stop": (["a", ["a", "b", "c", "d"], []], [["a"] * 5, 1]),
    "frequency_penalty": ([-2, 2], [-2.1, 2.1]),
    "presence_penalty": ([-2, 2], [-2.1, 2.1]),
    "repetition_penalty": ([-2, 2], [-2.1, 2.1]),
    "logit_bias": ([{"1": -100}, {"1": 100}], [{"1": 101}, [1]]),
    "logprobs": ([True, False], [1, "true"]),
    "seed": ([-INT64, INT64 - 1], [-INT64 - 1, INT64]),
    "user": (["me"], [1]),
    "stream": ([False], ["no"]),
    "model": ([LOCAL, [LOCAL], {"model": LOCAL}], ["", [], None, 1, {}]),
}


async def test_every_field_has_its_range(dialect_server: Server) -> None:
    """A value outside is refused with 400 by the field's name; the ends are inside."""
    body = {"model": LOCAL, "messages": HI, "stop": "a", "timeout_s": 5}
    wrong = []
    for field, (good, bad) in RANGES.items():
        for value in good:
            got = await post(dialect_server, CHAT, {**body, field: value})
            wrong += [] if got.status == 200 else [(field, value, got.body)]
        for value in bad:
            got = await post(dialect_server, CHAT, {**body, field: value})
            named = got.status == 400 and (got.error["param"] or "").split("[")[0].split(".")[0] == field
            wrong += [] if named else [(field, value, got.body)]
    assert wrong == []


async def test_null_is_as_if_absent_and_nothing_else_is_sent(dialect_server: Server) -> None:
    """No 16 tokens here, nor Konko's 24."""
    nothing = dict.fromkeys(set(RANGES) - {"model"} | {"top_logprobs", "stream_options", "tools", "response_format"})
    got = await chat(dialect_server, "up/echo", **nothing)
    assert got.upstream_bodies == [{"model": "echo", "stream": False, "messages": HI}]
    assert got.choices[0]["ignored_parameters"] == []


class TestMessages:
    async def test_messages_of_every_role_are_sent_unchanged(self, dialect_server: Server) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "Weather?", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "assistant", "content": None, "function_call": call["function"]},
            {"role": "function", "content": None, "name": "weather"},
            {"role": "assistant", "content": "", "refusal": "no"},
        ]
        got = await chat(dialect_server, "up/echo", messages)
        assert got.upstream_bodies[0]["messages"] == messages

    async def test_only_messages_of_the_assistant_may_lack_content(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, "up/echo", [{"role": "assistant", "tool_calls": []}, *HI])
        assert got.upstream_bodies[0]["messages"][0] == {"role": "assistant", "tool_calls": [], "content": None}

    async def test_messages_may_have_known_and_unknown_parts(self, dialect_server: Server) -> None:
        parts = [
            {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f1"}, "text": "with words"},
        ]
        got = await chat(dialect_server, "up/echo", [{"role": "user", "content": parts}])
        assert got.upstream_bodies[0]["messages"] == [{"role": "user", "content": parts}]

    async def test_images_are_ignored_by_a_model_that_takes_none(self, dialect_server: Server) -> None:
        parts = [{"type": "text", "text": "the"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
        got = await chat(dialect_server, LOCAL, [{"role": "user", "content": parts}], max_tokens=1)
        assert got.choices[0]["ignored_parameters"] == ["images"]

    async def test_malformed_messages_are_refused_by_their_places(self, dialect_server: Server) -> None:
        good = {"role": "user", "content": "hi"}
        part = {"type": "text", "text": "hi"}
        for place, messages in (
            ("messages", None),
            ("messages", []),
            ("messages", "hi"),
            ("messages[0]", ["hi"]),
            ("messages[1].role", [good, {"role": "robot", "content": "hi"}]),
            ("messages[0].role", [{"content": "hi"}]),
            ("messages[0]", [{"role": "user"}]),
            ("messages[0]", [{"role": "user", "content": None}]),
            ("messages[0].content", [{"role": "user", "content": 5}]),
            ("messages[0].content", [{"role": "user", "content": []}]),
            ("messages[0].content[1].type", [{"role": "user", "content": [part, {"text": "hi"}]}]),
            ("messages[0].content[0]", [{"role": "user", "content": [{"type": "text"}]}]),
            ("messages[0].content[0]", [{"role": "user", "content": [{"type": "image_url"}]}]),
            ("messages[0].content[0].image_url.url", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ):
            got = await chat(dialect_server, LOCAL, messages)
            assert (got.status, got.error["param"], len(got.error["details"])) == (400, place, 1)
        assert (await post(dialect_server, CHAT, model=LOCAL)).error["param"] == "messages"
        assert (await chat(dialect_server, LOCAL, prompt="hi")).error["param"] == "prompt"


class TestLength:
    async def test_the_length_has_two_names(self, dialect_server: Server) -> None:
        for fields in ({"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": 9}):
            assert (await chat(dialect_server, "up/echo", **fields)).upstream_bodies[0]["max_tokens"] == 9

    async def test_the_two_lengths_must_agree(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, "up/echo", max_tokens=9, max_completion_tokens=10)
        assert (got.status, got.error["param"]) == (400, "max_completion_tokens")

    async def test_an_entry_may_set_its_length_by_either_name(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, [{"model": "up/echo", "max_completion_tokens": 5}, "up/echo"], max_tokens=9)
        assert [body["max_tokens"] for body in got.upstream_bodies] == [5, 9]
        got = await chat(dialect_server, [{"model": "up/echo", "max_completion_tokens": None}, "up/echo"], max_tokens=9)
        assert [body.get("max_tokens") for body in got.upstream_bodies] == [None, 9]


class TestLogprobs:
    async def test_logprobs_are_a_flag_and_a_number(self, dialect_server: Server) -> None:
        def read_logprobs(body: dict[str, Any]) -> tuple[Any, Any]:
            return body.get("logprobs"), body.get("top_logprobs")

        for fields, sent in (
            ({}, (None, None)),
            ({"logprobs": False}, (None, None)),
            ({"logprobs": True}, (True, None)),
            ({"logprobs": True, "top_logprobs": 20}, (True, 20)),
        ):
            assert read_logprobs((await chat(dialect_server, "up/echo", **fields)).upstream_bodies[0]) == sent
        mine = [{"model": "up/echo", **own} for own in ({"logprobs": False}, {"top_logprobs": 5}, {"logprobs": True}, {})]
        got = await chat(dialect_server, mine, logprobs=True, top_logprobs=2)
        assert list(map(read_logprobs, got.upstream_bodies)) == [(None, None), (True, 5), (True, 2), (True, 2)]

    async def test_alternatives_without_logprobs_are_refused(self, dialect_server: Server) -> None:
        for fields in ({}, {"logprobs": False}, {"logprobs": None}):
            got = await chat(dialect_server, LOCAL, **fields, top_logprobs=2)
            assert (got.status, got.error["param"]) == (400, "top_logprobs")
        got = await chat(dialect_server, [LOCAL, {"model": LOCAL, "top_logprobs": 2}])
        assert (got.status, got.error["param"]) == (400, "model[1].top_logprobs")
        assert (await chat(dialect_server, LOCAL, logprobs=True, top_logprobs=21)).error["param"] == "top_logprobs"

    async def test_logprobs_have_the_bytes_of_their_tokens(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, LOCAL, logprobs=True, top_logprobs=2, max_tokens=5, seed=1)
        (choice,) = got.choices
        content = choice["logprobs"]["content"]
        assert choice["logprobs"]["refusal"] is None
        assert b"".join(bytes(token["bytes"]) for token in content).decode() == choice["message"]["content"]
        for token in content:
            assert token["logprob"] < 0
            assert [set(other) for other in token["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2

    async def test_logprobs_have_no_invented_bytes(self, tmp_path: Path) -> None:
        """A replacement for half a character has no bytes."""
        tokens = [
            {"token": "\ufffd", "logprob": -1, "bytes": [0xF0, 0x9F], "top_logprobs": [{"token": "\ufffd", "logprob": -2}]},
            {"token": "é", "logprob": -1, "top_logprobs": []},
        ]
        choice = {"message": {"content": "x"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}
        async with serve_canned(tmp_path, CannedUpstream(whole={"choices": [choice]})) as server:
            got = await chat(server, "up/m", logprobs=True)
        content = got.choices[0]["logprobs"]["content"]
        assert [token["bytes"] for token in content] == [[0xF0, 0x9F], list("é".encode())]
        assert content[0]["top_logprobs"] == [{"token": "\ufffd", "logprob": -2, "bytes": None}]


PASSED_ON = {
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "store": False,
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "web_search_options": {},
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "moderation": {"x": 1},
    "never_heard_of": [1, {"a": None}],
}


class TestFieldsOfSomeProviders:
    async def test_fields_of_some_providers_are_sent_unchanged(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, "up/echo", **PASSED_ON)
        assert got.upstream_bodies == [{"model": "echo", "stream": False, "messages": HI, **PASSED_ON}]
        assert got.choices[0]["ignored_parameters"] == []

    async def test_fields_of_some_providers_are_reported_elsewhere(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, LOCAL, max_tokens=1, **PASSED_ON)
        assert sorted(got.choices[0]["ignored_parameters"]) == sorted(PASSED_ON)
        got = await chat(dialect_server, ["up/ok", LOCAL], tools=PASSED_ON["tools"], strict_parameters=True)
        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"]
        assert (got.choices[1]["error"]["code"], got.choices[1]["error"]["param"]) == ("unsupported_parameter", "tools")

    async def test_fields_of_some_providers_may_stand_in_an_entry(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, [{"model": "up/echo", "verbosity": "high"}, "up/echo"], verbosity="low")
        assert [body["verbosity"] for body in got.upstream_bodies] == ["high", "low"]


async def test_unsupported_sampling_is_reported_for_each_entry(dialect_server: Server) -> None:
    parameters = {"temperature": 0.1, "seed": 1, "max_tokens": 5, "stop": "x", "user": "me"}
    got = await chat(dialect_server, ["up/ok", "narrow/ok"], **parameters)
    assert [sorted(choice["ignored_parameters"]) for choice in got.choices] == [
        [],
        ["max_tokens", "stop", "temperature", "user"],
    ]


async def test_a_value_beyond_a_hosts_range_is_clamped_and_reported(upstream: Upstream, tmp_path: Path) -> None:
    """Or fails that entry alone, where the caller is strict."""
    cold = {"adapter": "openai", "base_url": upstream.url, "parameters": {"clamp": {"temperature": [0, 1]}}}
    async with serve_hosts(upstream.url, tmp_path, more={"providers": {"cold": cold}}) as server:
        got = await chat(server, ["cold/echo", "up/echo"], temperature=1.5)
        strict = await chat(server, ["cold/echo", "up/echo"], temperature=1.5, strict_parameters=True)

    assert [body["temperature"] for body in got.upstream_bodies] == [1, 1.5]
    assert [choice["adjusted_parameters"] for choice in got.choices] == [{"temperature": {"asked": 1.5, "sent": 1}}, {}]
    assert [choice["finish_reason"] for choice in strict.choices] == ["error", "stop"]
    assert strict.choices[0]["error"]["code"] == "unsupported_parameter"


class TestAnswers:
    async def test_answers_have_the_fields_of_the_contract(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, ["up/ok", LOCAL], max_tokens=3)
        answer = got.json
        assert (answer["object"], answer["model"]) == ("chat.completion", f"up/ok,{LOCAL}")
        assert type(answer["created"]) is int
        assert answer["usage"]["total_tokens"] == sum(choice["usage"]["total_tokens"] for choice in got.choices)
        first = got.choices[0]
        assert first["message"] == {"role": "assistant", "content": "This is ok.", "refusal": None}
        assert (first["index"], first["logprobs"], first["finish_reason"], first["model"]) == (0, None, "stop", "up/ok")

    async def test_answers_of_one_backend_have_its_fingerprint(self, dialect_server: Server) -> None:
        alone = (await chat(dialect_server, LOCAL, max_tokens=1)).json["system_fingerprint"]
        assert alone.startswith("pydoc-")
        assert (await chat(dialect_server, [LOCAL, "up/ok"], max_tokens=1)).json["system_fingerprint"] is None

    async def test_answers_hold_tool_calls_refusal_and_reasoning(self, tmp_path: Path) -> None:
        calls = [
            {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "hm"}
        refused = {"role": "assistant", "content": None, "refusal": "I will not."}
        choices = [
            {"index": 0, "message": message, "finish_reason": "tool_calls"},
            {"index": 1, "message": refused, "finish_reason": "stop"},
        ]
        async with serve_canned(tmp_path, CannedUpstream(whole={"choices": choices})) as server:
            got = await chat(server, "up/m", n=2, tools=PASSED_ON["tools"])

        assert got.choices[0]["message"] == {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "hm",
            "tool_calls": calls,
        }
        assert [choice["finish_reason"] for choice in got.choices] == ["tool_calls", "stop"]
        assert got.choices[1]["message"] == {"role": "assistant", "content": None, "refusal": "I will not."}

    @pytest.mark.parametrize("finish", ["function_call", "stop"])
    async def test_a_request_with_functions_gets_a_function_call(self, finish: str, tmp_path: Path) -> None:
        """A forced one ends with `stop`."""
        call = {"name": "weather", "arguments": "{}"}
        choice = {"message": {"role": "assistant", "content": None, "function_call": call}, "finish_reason": finish}
        async with serve_canned(tmp_path, CannedUpstream(whole={"choices": [choice]})) as server:
            got = await chat(server, "up/m", functions=[{"name": "weather"}], function_call={"name": "weather"})
        message = {"role": "assistant", "content": None, "refusal": None, "function_call": call}
        assert (got.choices[0]["message"], got.choices[0]["finish_reason"]) == (message, finish)

    async def test_answers_hold_fields_that_only_some_providers_add(self, tmp_path: Path) -> None:
        """Audio and annotations, whole and streamed."""
        audio = {"id": "audio_1", "data": "AA==", "transcript": "hi", "expires_at": 1}
        cited = [{"type": "url_citation", "url_citation": {"url": "https://example.com"}}]
        message = {"role": "assistant", "content": None, "audio": audio, "annotations": cited}
        chunks = [
            build_delta(role="assistant"),
            build_delta(audio=audio),
            build_delta(content="x", annotations=cited),
            build_delta("stop"),
        ]
        async with serve_canned(
            tmp_path, CannedUpstream({"choices": [{"message": message, "finish_reason": "stop"}]}, chunks)
        ) as server:
            whole = await chat(server, "up/m", modalities=["text", "audio"])
            streamed = await chat(server, "up/m", modalities=["text", "audio"], stream=True)

        assert whole.choices[0]["message"]["audio"] == audio
        assert whole.choices[0]["message"]["annotations"] == cited
        assert [choice["delta"] for choice in streamed.choice_pieces(0)][1:] == [
            {"audio": audio},
            {"content": "x", "annotations": cited},
            {},
        ]

    async def test_failures_have_an_empty_message(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, ["up/ok", "nobody"])
        assert got.choices[1]["message"] == {"role": "assistant", "content": None, "refusal": None}


async def test_a_model_that_only_completes_text_fails_in_its_own_entry(dialect_server: Server, upstream: Upstream) -> None:
    """No template is invented for it."""
    got = await chat(dialect_server, ["ok", "ok-text"])
    assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"]
    assert (got.choices[1]["error"]["kind"], got.choices[1]["error"]["param"]) == ("unsupported", "model")
    assert len(upstream.requests) == 1
    alone = await chat(dialect_server, "ok-text")
    assert (alone.status, alone.error["code"], alone.error["param"]) == (400, "unsupported_endpoint", "model")


def test_every_parameter_is_known_to_the_tests() -> None:
    """`ALL` is what the hosts `narrow` and `poor` refuse."""
    assert set(ALL_PARAMETERS) == set(SAMPLING_NAMES)
