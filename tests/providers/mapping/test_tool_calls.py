"""Tool calls of OpenAI's format, in all the ways in which hosts send them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.json_text import JsonObject
from fanout.providers.mapping.choice_builder import ChoiceBuilder
from tests.support.openai_format import CALL, UP, build_choice, build_chunk, decode_answer, encode_chunks
from tests.support.provider_calls import expect_answer, replay_stream, try_stream

NAMES = st.sampled_from(["f", "g", "get_weather"])
VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=6), lambda inner: st.lists(inner, max_size=2), max_leaves=4)
ARGUMENTS = st.dictionaries(st.sampled_from(["x", "y", "}"]), VALUES, max_size=3)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4)
SIZES = st.integers(1, 12)

Pieces = Iterator[JsonObject]
Calls = list[tuple[str, JsonObject]]


def cut(arguments: JsonObject, size: int) -> list[str]:
    text = json.dumps(arguments)
    return [text[start : start + size] for start in range(0, len(text), size)]


def send_as_openai(calls: Calls, size: int) -> Pieces:
    """Index on every piece; id, type and name on the first."""
    for index, (name, arguments) in enumerate(calls):
        yield {"index": index, "id": f"id-{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        for piece in cut(arguments, size):
            yield {"index": index, "function": {"arguments": piece}}


def send_in_turns(calls: Calls, size: int) -> Pieces:
    """All calls at once, a piece of each in turn."""
    for index, (name, _) in enumerate(calls):
        yield {"index": index, "id": f"id-{index}", "type": "function", "function": {"name": name}}
    for row in zip_longest(*(cut(arguments, size) for _, arguments in calls)):
        yield from ({"index": index, "function": {"arguments": piece}} for index, piece in enumerate(row) if piece)


def send_without_ids(calls: Calls, size: int) -> Pieces:
    """An index alone; fields that stay the same are repeated as empty."""
    for index, (name, arguments) in enumerate(calls):
        yield {"index": index, "id": None, "function": {"name": name, "arguments": ""}}
        for piece in cut(arguments, size):
            yield {"index": index, "id": "", "type": "", "function": {"name": "", "arguments": piece}}


def send_names_with_every_piece(calls: Calls, size: int) -> Pieces:
    for index, (name, arguments) in enumerate(calls):
        for piece in cut(arguments, size):
            yield {"index": index, "id": f"id-{index}", "type": "function", "function": {"name": name, "arguments": piece}}


def send_a_new_id_with_every_piece(calls: Calls, size: int) -> Pieces:
    """The name stands in the first piece of a call alone."""
    for index, (name, arguments) in enumerate(calls):
        for number, piece in enumerate(cut(arguments, size)):
            function = {"name": name, "arguments": piece} if number == 0 else {"arguments": piece}
            yield {"index": index, "id": f"id-{index}-{number}", "function": function}


def send_a_new_id_with_every_piece_and_no_index(calls: Calls, size: int) -> Pieces:
    for piece in send_a_new_id_with_every_piece(calls, size):
        yield {**piece, "index": None}


def send_a_new_id_and_the_name_with_every_piece(calls: Calls, size: int) -> Pieces:
    for index, (name, arguments) in enumerate(calls):
        for number, piece in enumerate(cut(arguments, size)):
            yield {"index": index, "id": f"id-{index}-{number}", "function": {"name": name, "arguments": piece}}


def send_ids_without_index(calls: Calls, size: int) -> Pieces:
    """An id on every piece."""
    for index, (name, arguments) in enumerate(calls):
        yield {"id": f"id-{index}", "function": {"name": name, "arguments": ""}}
        yield from ({"id": f"id-{index}", "function": {"arguments": piece}} for piece in cut(arguments, size))


def send_neither_after_the_first_piece(calls: Calls, size: int) -> Pieces:
    for index, (name, arguments) in enumerate(calls):
        yield {"id": f"id-{index}", "function": {"name": name, "arguments": ""}}
        yield from ({"function": {"arguments": piece}} for piece in cut(arguments, size))


def send_whole(calls: Calls, size: int) -> Pieces:
    """Neither index nor id, and each call in one piece."""
    yield from ({"type": "function", "function": {"name": name, "arguments": json.dumps(given)}} for name, given in calls)


def send_whole_under_one_index(calls: Calls, size: int) -> Pieces:
    yield from ({"index": 0, **piece} for piece in send_whole(calls, size))


def send_whole_under_one_index_with_ids(calls: Calls, size: int) -> Pieces:
    yield from ({"index": 0, "id": f"id-{place}", **piece} for place, piece in enumerate(send_whole(calls, size)))


def send_pieces_under_one_index_with_ids(calls: Calls, size: int) -> Pieces:
    yield from ({**piece, "index": 0} for piece in send_as_openai(calls, size))


def send_objects(calls: Calls, size: int) -> Pieces:
    """Arguments that are no text."""
    for index, (name, arguments) in enumerate(calls):
        yield {"index": index, "id": f"id-{index}", "function": {"name": name, "arguments": arguments}}


def send_custom(calls: Calls, size: int) -> Pieces:
    """OpenAI's other kind of call."""
    for index, (name, arguments) in enumerate(calls):
        yield {"index": index, "id": f"id-{index}", "type": "custom", "custom": {"name": name, "input": ""}}
        yield from ({"index": index, "custom": {"input": piece}} for piece in cut(arguments, size))


FORMS = [form for name, form in list(globals().items()) if name.startswith("send_")]


def put_together(pieces: list[JsonObject]) -> list[JsonObject]:
    """Return the calls of a stream's pieces as OpenAI's own client puts them together: strings of one index are joined."""
    calls: dict[int, JsonObject] = {}
    for piece in pieces:
        call = calls.setdefault(piece["index"], {})
        for name, value in piece.items():
            if isinstance(value, dict):
                inner = call.setdefault(name, {})
                for key, text in value.items():
                    inner[key] = inner.get(key, "") + text
            elif name != "index":
                call[name] = call.get(name, "") + value
    return [calls[index] for index in sorted(calls)]


@pytest.mark.parametrize("form", FORMS)
@given(calls=CALLS, size=SIZES, together=st.booleans())
def test_every_form_gives_the_calls_that_were_meant(
    form: Callable[[Calls, int], Pieces], calls: Calls, size: int, together: bool
) -> None:
    """Whether a chunk holds one piece or all, and to the client of the stream as to whoever reads its end."""
    pieces = list(form(calls, size))
    groups = [pieces] if together else [[piece] for piece in pieces]
    chunks = encode_chunks(*(build_chunk(tool_calls=group) for group in groups), build_chunk(finish="tool_calls"))
    deltas, completion = replay_stream(UP, CALL, [chunks])
    built = list(completion.choices[0].message.tool_calls)
    payloads = [call["custom"] if call["type"] == "custom" else call["function"] for call in built]
    given_arguments = [json.loads(payload.get("arguments") or payload.get("input")) for payload in payloads]
    assert list(zip([payload["name"] for payload in payloads], given_arguments, strict=True)) == calls
    assert put_together([piece for delta in deltas for piece in delta.tool_calls]) == built
    assert len({call["id"] for call in built}) == len(built)


@pytest.mark.parametrize("form", [send_whole, send_objects, send_whole_under_one_index_with_ids])
@given(calls=CALLS)
def test_whole_calls_are_told_apart_in_whole_answers(form: Callable[[Calls, int], Pieces], calls: Calls) -> None:
    """There each stands by itself, whatever its index is; its arguments are text."""
    answer = decode_answer({"choices": [build_choice(None, "tool_calls")]} | {})
    assert answer.choices[0].message.tool_calls == ()
    message = {"role": "assistant", "content": None, "tool_calls": list(form(calls, 1))}
    built = decode_answer({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).choices[0].message.tool_calls
    functions = [call["function"] for call in built]
    assert [(function["name"], json.loads(function["arguments"])) for function in functions] == calls
    assert all("index" not in call and isinstance(call["id"], str) for call in built)


EMPTY: list[Any] = [
    {"function_call": {"name": "", "arguments": ""}},
    {"function_call": {}},
    {"function_call": None, "tool_calls": None},
    {"tool_calls": []},
    {"tool_calls": [{}]},
    {"tool_calls": [{"id": "", "type": "function", "function": {"name": "", "arguments": ""}}]},
    {"tool_calls": [{"id": "", "type": "", "function": {"name": "", "arguments": ""}}], "function_call": {"name": ""}},
    {"tool_calls": [None, 5, "f"]},
]


@pytest.mark.parametrize("fields", EMPTY, ids=str)
def test_an_empty_call_is_none(fields: dict[str, Any]) -> None:
    """Hosts written in Go send every field, empty."""
    whole = decode_answer({"choices": [{"message": {"content": "Four.", **fields}, "finish_reason": "stop"}]})
    deltas, streamed = replay_stream(UP, CALL, [encode_chunks(build_chunk("Four.", "stop", **fields))])
    for completion in (whole, streamed):
        assert (completion.choices[0].message.text, completion.choices[0].message.tool_calls) == ("Four.", ())
    assert [delta.tool_calls for delta in deltas] == [()]


def test_the_older_form_is_a_call() -> None:
    """Whole, in pieces, and with arguments that are null."""
    whole = decode_answer({"choices": [{"message": {"function_call": {"name": "f", "arguments": None}}}]})
    assert whole.choices[0].message.tool_calls[0]["function"] == {"name": "f", "arguments": "{}"}
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ":1}"}]
    chunks = [build_chunk(function_call=piece) for piece in pieces]
    _, streamed = replay_stream(UP, CALL, [encode_chunks(*chunks, build_chunk(finish="function_call"))])
    assert streamed.choices[0].message.tool_calls[0]["function"] == {"name": "f", "arguments": '{"x":1}'}


def test_fields_of_a_host_stay_with_their_call() -> None:
    """As the signature that Gemini wants back; also one that comes alone."""
    first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    signed = {"index": 0, "extra_content": {"google": {"thought_signature": "s"}}}
    _, completion = replay_stream(
        UP, CALL, [encode_chunks(build_chunk(tool_calls=[first, signed]), build_chunk(finish="stop"))]
    )
    (call,) = completion.choices[0].message.tool_calls
    assert call["extra_content"] == {"google": {"thought_signature": "s"}}


def read_calls(*pieces: JsonObject) -> list[tuple[str, str]]:
    """Return names and arguments of a stream's calls, which are the same in its pieces and at its end."""
    stream = encode_chunks(*(build_chunk(tool_calls=piece) for piece in pieces), build_chunk(finish="tool_calls"))
    deltas, completion = replay_stream(UP, CALL, [stream])
    calls = completion.choices[0].message.tool_calls
    assert put_together([piece for delta in deltas for piece in delta.tool_calls]) == list(calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


def write_call(name: str | None, arguments: Any = None, **fields: Any) -> JsonObject:
    return {**fields, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([[write_call("f", "", index=0, id="a")]], [("f", "{}")]),
        ([[write_call("f", index=0, id="a")], [write_call("g", index=1, id="b")]], [("f", "{}"), ("g", "{}")]),
        ([[write_call("f", '{"x":1}', index=0, id="a")], [write_call("f", '{"x":1}', index=0, id="a")]], [("f", '{"x":1}')]),
        ([[write_call("get_", index=0, id="a")], [write_call("weather", "{}", index=0)]], [("get_weather", "{}")]),
        ([[write_call("get_", "", index=0)], [write_call("get_weather", "{}", index=0)]], [("get_weather", "{}")]),
        ([[{"index": 0, "id": "a", "name": "f", "arguments": {"x": 1}}]], [("f", '{"x":1}')]),
        ([write_call("f", "{}", index=0, id="a")], [("f", "{}")]),
    ],
    ids=["no arguments", "none of two", "whole again", "name in pieces", "growing name", "no inner object", "no list"],
)
def test_calls_are_whole_however_a_stream_writes_them(pieces: list[Any], expected: list[tuple[str, str]]) -> None:
    assert read_calls(*pieces) == expected


@pytest.mark.parametrize("calls", [{"name": "f", "arguments": {"x": 1}}, [{"name": "f", "arguments": {"x": 1}}]])
def test_whole_calls_are_read_without_a_list_and_without_an_inner_object(calls: Any) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    (call,) = decode_answer({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).choices[0].message.tool_calls
    assert call == {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}


PAYLOAD: st.SearchStrategy[JsonObject] = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["", "f", "g", None]),
        "arguments": st.sampled_from(["", "{}", '{"x":', "1}", None, {}, 5]),
    },
)
PIECE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.none() | st.integers(-2, 3) | st.text(max_size=2),
        "id": st.none() | st.sampled_from(["", "a", "b", 7]),
        "type": st.none() | st.sampled_from(["function", "custom", ""]),
        "function": st.none() | PAYLOAD,
        "custom": st.none() | st.just({"name": "c", "input": "x"}),
    },
)


@given(st.lists(PIECE, max_size=12))
def test_any_pieces_are_the_same_calls_to_the_client_and_at_the_end(pieces: list[JsonObject]) -> None:
    """However they are numbered; nothing of an argument is lost."""
    builder = ChoiceBuilder()
    sent = [piece for raw in pieces for piece in builder.add_calls({"tool_calls": [raw]})] + list(builder.end_calls())
    built = list(builder.build().message.tool_calls)
    assert put_together(sent) == [
        {name: value for name, value in call.items() if name != "function" or "function" in joined}
        for call, joined in zip(built, put_together(sent), strict=True)
    ]
    assert all(isinstance((call.get("function") or call["custom"])["name"], str) for call in built)


def test_repeated_names_do_not_cost_the_square_of_their_arguments() -> None:
    """Whether arguments are complete is only looked at while they are short."""
    piece = {"id": None, "function": {"name": "f", "arguments": '{"a": "' + "x" * 1000 + "}"}}
    stream = encode_chunks(*[build_chunk(tool_calls=[piece])] * 3000, build_chunk(finish="stop"))
    (call,) = expect_answer(try_stream(UP, CALL, [stream])).choices[0].message.tool_calls
    assert len(call["function"]["arguments"]) == 3000 * 1008
