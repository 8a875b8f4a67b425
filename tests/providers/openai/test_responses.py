"""OpenAI's Responses format: against a real llama.cpp server, and what is sent and read, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Completion, Failure
from fanout.providers.openai.responses import Responses
from tests.support.llama.process import Llama
from tests.support.provider_calls import (
    build_adapter,
    build_call,
    collect_stream,
    encode_body,
    expect_answer,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
}
OUTPUT: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "web_search_call", "id": "ws", "status": "completed"},
    {
        "type": "message",
        "id": "msg",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hey", "annotations": [{"type": "url_citation", "url": "u"}]}],
    },
    {"type": "function_call", "id": "fc", "call_id": "c1", "name": "weather", "arguments": '{"a":1}'},
]
BODY: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt",
    "status": "completed",
    "output": OUTPUT,
    "usage": USAGE,
}


def write_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def write_stream(end: bytes, *, pieces: bool = True) -> bytes:
    """Return the events of `OUTPUT`, with or without the pieces of its items."""
    begin = write_event("response.created", response={"id": "resp_1", "model": "gpt", "status": "in_progress", "output": []})
    deltas = {
        0: [write_event("response.reasoning_summary_text.delta", output_index=0, delta=piece) for piece in "hm"],
        2: [write_event("response.output_text.delta", output_index=2, delta=piece, logprobs=[]) for piece in ("H", "ey")],
        3: [write_event("response.function_call_arguments.delta", output_index=3, delta=piece) for piece in ('{"a"', ":1}")],
    }
    events = [begin]
    for place, item in enumerate(OUTPUT):
        empty = {**item, "arguments": ""} if item["type"] == "function_call" else {**item, "content": []}
        events.append(write_event("response.output_item.added", output_index=place, item=empty))
        events += deltas.get(place, []) if pieces else []
        events.append(write_event("response.output_item.done", output_index=place, item=item))
    return b"".join([*events, end])


def check_completion(completion: Completion) -> None:
    """Check that an answer is what `BODY` says."""
    (choice,) = completion.choices
    assert (choice.message.text, choice.message.reasoning, choice.finish_reason) == ("Hey", "hm", "tool_calls")
    assert [(call["id"], call["function"]["arguments"]) for call in choice.message.tool_calls] == [("c1", '{"a":1}')]
    assert choice.message.extra["annotations"] == [{"type": "url_citation", "url_citation": {"url": "u"}}]
    assert [item["type"] for item in choice.message.extra["output_items"]] == ["web_search_call"]
    usage = completion.usage
    assert usage is not None
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
    assert (completion.model, counts) == ("gpt", (9, 7, 4, 3))


async def test_a_whole_answer_of_llama_cpp_equals_its_stream(llama: Llama) -> None:
    async with open_session() as session:
        provider = build_adapter(Responses, llama.url, session=session, key=llama.key)
        call = build_call(provider, llama.model, max_tokens=12, temperature=0.0)
        whole = await provider.complete(call)
        deltas, streamed = await collect_stream(provider, call)
    assert "".join(delta.text for delta in deltas) == streamed.choices[0].message.text
    for completion in (whole, streamed):
        assert completion.choices[0].message.text
        assert completion.usage is not None
        assert completion.usage.output_tokens


def test_everything_a_chat_holds_is_sent() -> None:
    provider = build_adapter(Responses, "https://api.openai.com/v1")
    messages = (
        Message("system", "Be brief."),
        Message(
            "user", (TextPart("see"), ImagePart("data:,x", "low"), OtherPart({"type": "file", "file": {"file_data": "d"}}))
        ),
        Message("assistant", "I look.", {"tool_calls": [CALL]}),
        Message("tool", "rain", {"tool_call_id": "c1"}),
    )
    fields = {
        "tools": [TOOL, {"type": "web_search"}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "verbosity": "low",
        "reasoning_effort": "none",
        "metadata": {"a": "b"},
    }
    call = build_call(
        provider, "gpt-5.2", messages=messages, passthrough=fields, max_tokens=3, seed=1, stop=("a",), temperature=0.5
    )
    sent = encode_body(provider, call)
    assert sent == {
        "model": "gpt-5.2",
        "stream": False,
        "store": False,
        "max_output_tokens": 16,
        "temperature": 0.5,
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:,x", "detail": "low"},
                {"type": "input_file", "file_data": "d"},
            ]},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "none"},
        "metadata": {"a": "b"},
    }  # fmt: skip
    assert (set(call.fitted.ignored), call.fitted.adjusted) == ({"seed", "stop"}, {"max_tokens": (3, 16)})


def test_log_probabilities_are_included_on_request() -> None:
    provider = build_adapter(Responses)
    sent = encode_body(provider, build_call(provider, logprobs=2))
    assert (sent["top_logprobs"], sent["include"]) == (2, ["message.output_text.logprobs"])


def test_a_whole_answer_is_read() -> None:
    provider = build_adapter(Responses)
    completion = try_decode(provider, build_call(provider), 200, BODY)
    assert isinstance(completion, Completion)
    check_completion(completion)


@pytest.mark.parametrize("pieces", [True, False], ids=["in pieces", "items alone"])
def test_a_stream_is_read(pieces: bool) -> None:
    provider = build_adapter(Responses)
    result = try_stream(
        provider, build_call(provider), [write_stream(write_event("response.completed", response=BODY), pieces=pieces)]
    )
    assert not isinstance(result, Failure)
    deltas, completion = result
    check_completion(completion)
    assert "".join(delta.text for delta in deltas) == "Hey"


def test_a_stream_whose_end_alone_holds_the_answer_is_read() -> None:
    provider = build_adapter(Responses)
    begun = write_event("response.output_item.added", output_index=2, item={"type": "message", "content": []})
    end = write_event("response.completed", response=BODY)
    for stream in (end, begun + end):
        result = try_stream(provider, build_call(provider), [stream])
        assert not isinstance(result, Failure)
        check_completion(result[1])


def test_an_item_that_comes_whole_loses_nothing() -> None:
    provider = build_adapter(Responses)
    token = {"token": "Hey", "logprob": -1.0, "top_logprobs": []}
    content = [{"type": "output_text", "text": "Hey", "logprobs": [token]}, {"type": "refusal", "refusal": "No more."}]
    item = {"type": "message", "id": "msg", "content": content}
    events = write_event("response.output_item.done", output_index=0, item=item)
    end = write_event("response.completed", response={**BODY, "output": [item]})
    result = try_stream(provider, build_call(provider), [events + end])
    assert not isinstance(result, Failure)
    (choice,) = result[1].choices
    assert (choice.message.text, choice.message.refusal) == ("Hey", "No more.")
    assert [token.token for token in choice.logprobs or ()] == ["Hey"]


def test_items_without_positions_are_told_apart_by_their_ids() -> None:
    provider = build_adapter(Responses)
    calls = [{"type": "function_call", "call_id": id_, "name": "weather", "arguments": '{"a":1}'} for id_ in ("fc_1", "fc_2")]
    events = [write_event("response.output_item.added", item={**call, "arguments": ""}) for call in calls]
    events += [
        write_event("response.function_call_arguments.delta", item_id=call["call_id"], delta=piece)
        for piece in ('{"a"', ":1}")
        for call in calls
    ]
    events += [write_event("response.output_item.done", item=call) for call in calls]
    events.append(write_event("response.completed", response={**BODY, "output": calls}))
    result = try_stream(provider, build_call(provider), [b"".join(events)])
    assert not isinstance(result, Failure)
    made = result[1].choices[0].message.tool_calls
    assert [(call["id"], call["function"]["arguments"]) for call in made] == [("fc_1", '{"a":1}'), ("fc_2", '{"a":1}')]


@pytest.mark.parametrize("event", [{"type": ["x"]}, {"type": "response.output_text.delta", "output_index": [1], "delta": "x"}])
def test_a_garbled_event_is_no_bug_of_ours(event: dict[str, Any]) -> None:
    provider = build_adapter(Responses)
    garbled = b"data: %b\n\n" % json.dumps(event).encode()
    result = try_stream(provider, build_call(provider), [garbled + write_event("response.completed", response=BODY)])
    assert not isinstance(result, Failure)


def test_an_answer_that_was_cut_says_why() -> None:
    provider = build_adapter(Responses)
    body = {**BODY, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    whole = try_decode(provider, build_call(provider), 200, body)
    assert isinstance(whole, Completion)
    streamed = try_stream(provider, build_call(provider), [write_stream(write_event("response.incomplete", response=body))])
    assert not isinstance(streamed, Failure)
    assert [completion.choices[0].finish_reason for completion in (whole, streamed[1])] == ["length", "length"]


FAILED = {**BODY, "status": "failed", "error": {"code": "server_error", "message": "it broke"}, "output": []}


def test_a_failure_within_an_answer_is_one() -> None:
    provider = build_adapter(Responses)
    failure = expect_failure(try_decode(provider, build_call(provider), 200, FAILED))
    assert "it broke" in failure.message
    for end in (
        write_event("response.failed", response=FAILED),
        write_event("error", code="server_error", message="it broke", param=None),
    ):
        result = try_stream(provider, build_call(provider), [write_stream(end)])
        assert isinstance(result, Failure)
        assert ("it broke" in result.message, result.partial) == (True, "Hey")


def test_a_stream_without_its_end_is_no_answer() -> None:
    provider = build_adapter(Responses)
    assert expect_failure(try_stream(provider, build_call(provider), [write_stream(b"")])).code == "stream_truncated"


UP = build_adapter(Responses)
CUSTOM = {"type": "custom", "custom": {"name": "sql", "description": "Query"}}
CUSTOM_CALL = {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
CUSTOM_ITEM = {"type": "custom_tool_call", "id": "ct", "call_id": "c2", "name": "sql", "input": "SELECT 1"}
SPOKEN = {"type": "output_audio", "data": "aGk=", "transcript": "hi"}


def write_items(*items: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return an answer of these items, whole and in events without pieces."""
    body = {**BODY, "output": list(items)}
    events = (
        write_event(f"response.output_item.{step}", output_index=place, item=item)
        for place, item in enumerate(items)
        for step in ("added", "done")
    )
    return body, b"".join(events) + write_event("response.completed", response=body)


def test_calls_of_tools_that_are_no_functions_are_tool_calls() -> None:
    """Whole, in pieces and without them; a conversation carries them back, with what they returned."""
    whole, stream = write_items(CUSTOM_ITEM)
    begun = write_event("response.output_item.added", output_index=0, item={**CUSTOM_ITEM, "input": ""})
    pieces = [write_event("response.custom_tool_call_input.delta", output_index=0, delta=text) for text in ("SELECT", " 1")]
    done = write_event("response.output_item.done", output_index=0, item=CUSTOM_ITEM)
    end = write_event("response.completed", response=whole)
    call = build_call(UP, passthrough={"tools": [CUSTOM]})
    for answer in (
        try_decode(UP, call, 200, whole),
        *(
            expect_answer(try_stream(UP, call, [data]))
            for data in (stream, begun + b"".join(pieces) + done + end, begun + done + end)
        ),
    ):
        assert isinstance(answer, Completion)
        assert (answer.choices[0].message.tool_calls, answer.choices[0].finish_reason) == ((CUSTOM_CALL,), "tool_calls")
    past = (
        Message("assistant", None, {"tool_calls": [CUSTOM_CALL, CALL]}),
        Message("tool", "1", {"tool_call_id": "c2"}),
        Message("tool", "2", {"tool_call_id": "c1"}),
    )
    body = encode_body(UP, build_call(UP, messages=past, passthrough={"tools": [CUSTOM]}))
    assert body["tools"] == [{"type": "custom", "name": "sql", "description": "Query"}]
    assert body["input"] == [
        {"call_id": "c2", "type": "custom_tool_call", "name": "sql", "input": "SELECT 1"},
        {"call_id": "c1", "type": "function_call", "name": "weather", "arguments": "{}"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "1"},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ]


@pytest.mark.parametrize("part", [SPOKEN, {"type": ["output_text"], "data": "x"}], ids=["audio", "a type that is no text"])
def test_parts_of_a_message_that_are_no_text_are_kept(part: dict[str, Any]) -> None:
    whole, stream = write_items({"type": "message", "id": "m", "content": [part]})
    for answer in (try_decode(UP, build_call(UP), 200, whole), expect_answer(try_stream(UP, build_call(UP), [stream]))):
        assert isinstance(answer, Completion)
        assert (answer.choices[0].message.text, answer.choices[0].message.extra) == ("", {"content_parts": [part]})
