"""Streams of OpenAI's two dialects, frame by frame."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Reply
from tests.support.dialects import (
    CHAT,
    COMPLETIONS,
    HI,
    CannedUpstream,
    build_delta,
    chat,
    complete,
    get_text,
    post,
    serve_canned,
)
from tests.support.server import Server

LOCAL = "local/ngram-3"
ASKING = {COMPLETIONS: complete, CHAT: chat}


def read_chunks(got: Reply) -> list[Any]:
    """Return the chunks of a stream, which must end with `[DONE]`."""
    assert got.status == 200
    *events, last = got.events
    assert last == "[DONE]"
    return events


def read_deltas(got: Reply, index: int = 0) -> list[Any]:
    """Return the deltas of one choice, from the first to the last."""
    return [choice["delta"] for choice in got.choice_pieces(index)]


@pytest.mark.parametrize("path", ASKING)
class TestEveryStream:
    async def test_a_stream_has_chunks_of_one_choice_under_one_head(self, path: str, dialect_server: Server) -> None:
        got = await ASKING[path](dialect_server, ["up/ok", "up/chunks-3"], stream=True)
        events = read_chunks(got)

        assert {event["object"] for event in events} == {"text_completion" if path == COMPLETIONS else "chat.completion.chunk"}
        assert len({(event["id"], event["created"]) for event in events}) == 1
        assert type(events[0]["created"]) is int
        assert {len(event["choices"]) for event in events} == {1}
        assert all("usage" not in event for event in events)
        for index, text in enumerate(("This is ok.", "w0 w1 w2 ")):
            *before, end = got.choice_pieces(index)
            assert get_text(got.choice_pieces(index)) == text
            assert {choice["finish_reason"] for choice in before} == {None}
            assert end["finish_reason"] == "stop"
            assert end["usage"]["total_tokens"] == 14

    async def test_each_chunk_names_its_model_as_the_caller_did(self, path: str, dialect_server: Server) -> None:
        got = await ASKING[path](
            dialect_server,
            ["UP-typo", "OK", {"model": "up/ok", "label": "mine"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        *events, totals = read_chunks(got)

        assert {(event["model"], event["choices"][0]["model"], event["choices"][0]["entry"]) for event in events} == {
            ("UP-typo", "UP-typo", 0),
            ("OK", "OK", 1),
            ("mine", "up/ok", 2),
        }
        assert totals["model"] == "UP-typo,OK,mine"

    async def test_a_stream_ends_with_the_totals_if_requested(self, path: str, dialect_server: Server) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}

        *events, totals = read_chunks(await ASKING[path](dialect_server, ["up/ok", "up/no_usage", "nobody"], **options))
        (*_, unknown) = read_chunks(await ASKING[path](dialect_server, "up/no_usage", **options))

        assert [event["usage"] for event in events] == [None] * len(events)
        assert totals["choices"] == []
        assert (totals["usage"]["prompt_tokens"], totals["usage"]["completion_tokens"]) == (10, 4)
        assert (totals["usage"]["total_tokens"], totals["unknown_usage"]) == (14, 1)
        assert set(totals["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
        assert unknown["usage"] is None

    async def test_stream_options_without_a_stream_are_refused(self, path: str, dialect_server: Server) -> None:
        """In OpenAI's own words."""
        for stream in (False, None):
            got = await ASKING[path](dialect_server, "up/ok", stream=stream, stream_options={"include_usage": True})
            assert got.status == 400
            assert got.error == {
                "message": "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                "type": "invalid_request_error",
                "param": "stream_options",
                "code": None,
            }
        assert (await ASKING[path](dialect_server, "up/ok", stream_options=None)).status == 200

    async def test_failures_stand_within_their_choices(self, path: str, dialect_server: Server) -> None:
        """A top-level `error` makes OpenAI's clients drop the whole stream; what had arrived stays."""
        models = ["up/ok", "nobody", "up/chunks-4-cut", "up/chunks-4-error-502", "up/400", "up/hang"]

        got = await ASKING[path](dialect_server, models, stream=True, timeout_s=0.5)

        assert all("error" not in event for event in read_chunks(got))
        ends = [got.choice_pieces(index)[-1] for index in range(6)]
        assert [end["finish_reason"] for end in ends] == ["stop", "error", "error", "error", "error", "timeout"]
        assert [get_text(got.choice_pieces(index)) for index in range(6)] == ["This is ok.", "", "w0 w1 ", "w0 w1 ", "", ""]
        assert [bool(end["error"]) for end in ends] == [False, True, True, True, True, True]
        assert all(set(end["error"]) >= {"message", "type", "param", "code"} for end in ends[1:])

    async def test_a_stream_that_never_began_has_a_status(self, path: str, dialect_server: Server) -> None:
        got = await ASKING[path](dialect_server, ["nobody", "nothing"], stream=True)
        assert (got.status, got.error["code"], len(got.error["details"])) == (404, "model_not_found", 2)
        assert (await ASKING[path](dialect_server, "up/500", stream=True)).status == 502

    async def test_samples_of_one_call_have_places_of_their_own(self, path: str, dialect_server: Server) -> None:
        got = await ASKING[path](dialect_server, ["up/ok", "up/chunks-2"], n=2, stream=True)

        assert [get_text(got.choice_pieces(index)) for index in range(4)] == ["This is ok."] * 2 + ["w0 w1 "] * 2
        ends = [got.choice_pieces(index)[-1] for index in range(4)]
        assert [(end["entry"], end["sample"]) for end in ends] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert [bool(end["usage"]) for end in ends] == [True, False, True, False]

    async def test_a_stream_holds_the_same_as_the_whole_answer(self, path: str, dialect_server: Server) -> None:
        options: dict[str, Any] = {"seed": 5, "max_tokens": 30, "n": 2, "logprobs": 2}
        if path == CHAT:
            options |= {"logprobs": True, "top_logprobs": 2}
        else:
            options |= {"echo": True}

        whole = await ASKING[path](dialect_server, LOCAL, **options)
        got = await ASKING[path](dialect_server, LOCAL, **options, stream=True)

        for choice in whole.choices:
            pieces = got.choice_pieces(choice["index"])
            text = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
            assert get_text(pieces) == text
            logprobs = [piece["logprobs"] for piece in pieces if piece["logprobs"]]
            for name, values in choice["logprobs"].items():
                assert values is None or [value for part in logprobs for value in part[name]] == values
            assert pieces[-1]["finish_reason"] == choice["finish_reason"]

    async def test_missing_choices_are_filled_up_and_surplus_ones_dropped(self, path: str, tmp_path: Path) -> None:
        pieces = [{"choices": [{"index": number, "delta": {"content": str(number)}, "text": str(number)}]} for number in (0, 7)]
        end: list[Any] = [
            {"choices": [{"index": number, "delta": {}, "text": "", "finish_reason": "stop"}]} for number in (0, 7)
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=[*pieces[:1], *end[:1]])) as server:
            few = await ASKING[path](server, ["up/a", "up/b"], n=2, stream=True)
        async with serve_canned(tmp_path, CannedUpstream(chunks=[*pieces, *end])) as server:
            many = await ASKING[path](server, ["up/a", "up/b"], stream=True)

        assert [few.choice_pieces(index)[-1]["finish_reason"] for index in range(4)] == ["stop", "error", "stop", "error"]
        assert few.choice_pieces(1)[-1]["error"]["code"] == "missing_choice"
        assert [get_text(many.choice_pieces(index)) for index in (0, 1)] == ["0", "0"]
        assert {choice["index"] for event in read_chunks(many) for choice in event["choices"]} == {0, 1}


async def test_an_echo_of_no_tokens_is_streamed_too(dialect_server: Server) -> None:
    got = await complete(dialect_server, LOCAL, "Once", max_tokens=0, echo=True, stream=True)
    assert (get_text(got.choice_pieces(0)), got.choice_pieces(0)[-1]["finish_reason"]) == ("Once", "length")


async def test_a_refusal_stands_as_text_in_a_text_completion(tmp_path: Path) -> None:
    pieces = [build_delta(role="assistant"), build_delta(refusal="I will "), build_delta(refusal="not."), build_delta("stop")]
    async with serve_canned(tmp_path, CannedUpstream(chunks=pieces)) as server:
        assert get_text((await complete(server, "up/m", stream=True)).choice_pieces(0)) == "I will not."


class TestChatDeltas:
    """As OpenAI has them: the role first, then the content, then an empty one with the finish reason."""

    async def test_a_text_is_streamed_in_deltas(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, "up/chunks-2", stream=True)
        role = {"role": "assistant", "content": "", "refusal": None}
        assert read_deltas(got) == [role, {"content": "w0 "}, {"content": "w1 "}, {}]

    async def test_a_failure_is_streamed_in_deltas(self, dialect_server: Server) -> None:
        got = await chat(dialect_server, ["nobody", "up/ok"], stream=True)
        assert read_deltas(got) == [{"role": "assistant", "content": "", "refusal": None}, {}]
        assert got.choice_pieces(0)[-1]["error"]["code"] == "model_not_found"

    async def test_tool_calls_are_streamed_in_deltas(self, tmp_path: Path) -> None:
        """Each piece says which call it belongs to."""
        begun = [
            {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": ""}}
            for number, name in enumerate(("weather", "time"))
        ]
        more = [{"index": number, "function": {"arguments": '{"at": '}} for number in (0, 1)]
        rest = [{"index": number, "function": {"arguments": f"{number}}}"}} for number in (0, 1)]
        pieces = [build_delta(tool_calls=[call]) for call in (begun[0], more[0], rest[0], begun[1], more[1], rest[1])]
        upstream = CannedUpstream(chunks=[build_delta(role="assistant", content=None), *pieces, build_delta("tool_calls")])
        tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
        async with serve_canned(tmp_path, upstream) as server:
            got = await chat(server, "up/m", tools=tools, tool_choice="auto", parallel_tool_calls=True, stream=True)

        first, *pieces, last = read_deltas(got)
        assert (upstream.requests[0]["tools"], upstream.requests[0]["tool_choice"]) == (tools, "auto")
        assert (first, last) == ({"role": "assistant", "content": None, "refusal": None}, {})
        assert got.choice_pieces(0)[-1]["finish_reason"] == "tool_calls"
        calls = [call for piece in pieces for call in piece["tool_calls"]]
        assert [call["index"] for call in calls] == [0, 0, 0, 1, 1, 1]
        assert [call["id"] for call in calls if "id" in call] == ["call_0", "call_1"]
        for number, name in enumerate(("weather", "time")):
            functions = [call["function"] for call in calls if call["index"] == number]
            assert functions[0]["name"] == name
            assert "".join(function["arguments"] for function in functions) == f'{{"at": {number}}}'

    async def test_a_function_call_is_streamed_in_deltas(self, tmp_path: Path) -> None:
        """The older name, for callers who use it."""
        pieces = [
            build_delta(role="assistant", content=None, function_call={"name": "weather", "arguments": ""}),
            build_delta(function_call={"arguments": "{}"}),
            build_delta("function_call"),
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=pieces)) as server:
            got = await chat(server, "up/m", functions=[{"name": "weather"}], stream=True)

        first, *pieces, last = read_deltas(got)
        assert (first["content"], last, got.choice_pieces(0)[-1]["finish_reason"]) == (None, {}, "function_call")
        assert pieces == [
            {"function_call": {"name": "weather", "arguments": ""}},
            {"function_call": {"arguments": "{}"}},
        ]

    async def test_refusal_and_reasoning_are_streamed_in_deltas(self, tmp_path: Path) -> None:
        pieces = [
            build_delta(role="assistant", content=""),
            build_delta(reasoning_content="hm "),
            build_delta(reasoning="hm"),
            build_delta(refusal="I will not."),
            build_delta("stop"),
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=pieces)) as server:
            got = await chat(server, "up/m", reasoning_effort="low", stream=True)
        assert read_deltas(got)[1:] == [
            {"reasoning_content": "hm "},
            {"reasoning_content": "hm"},
            {"refusal": "I will not."},
            {},
        ]

    async def test_log_probabilities_are_streamed_in_deltas(self, tmp_path: Path) -> None:
        """A token may end in the middle of a character: its bytes say where."""
        token = {"token": "\\xe2", "logprob": -0.5, "bytes": [0xE2], "top_logprobs": []}
        pieces = [
            build_delta(role="assistant", content=""),
            build_delta(content="a", logprobs={"content": [token]}),
            build_delta("stop"),
        ]
        async with serve_canned(tmp_path, CannedUpstream(chunks=pieces)) as server:
            got = await chat(server, "up/m", logprobs=True, stream=True)
        _, piece, end = got.choice_pieces(0)
        assert piece["logprobs"] == {"content": [token], "refusal": None}
        assert end["logprobs"] is None


async def test_pieces_come_as_they_are_made(dialect_server: Server) -> None:
    """Two models that speak at the same time are interleaved."""
    got = await chat(dialect_server, ["up/chunks-5-gap-0.03"] * 2, stream=True)
    speakers = [event["choices"][0]["index"] for event in read_chunks(got)]
    assert sum(one != other for one, other in pairwise(speakers)) > 4


async def test_a_stream_is_sent_whatever_the_accept_header(dialect_server: Server) -> None:
    """The clients send `Accept: application/json` even for a stream."""
    body = {"model": "up/ok", "messages": HI, "stream": True}
    got = await post(dialect_server, CHAT, body, {"Accept": "application/json", "X-Stainless-Lang": "python"})
    assert get_text(got.choice_pieces(0)) == "This is ok."
    assert got.headers["Cache-Control"] == "no-store"
