"""Content beside the text in every wire format: whole and streamed it reaches the caller alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fanout.core.extras import merge_extras
from fanout.core.schema import Answer
from fanout.providers.transport.http import HttpProvider
from tests.support.openai_format import UP as OPENAI
from tests.support.openai_format import build_chunk, encode_chunks
from tests.support.provider_calls import build_call, decode, expect_answer, try_stream
from tests.support.rich_answers import (
    ANTHROPIC,
    GEMINI,
    IMAGE,
    RICH_ANSWERS,
    RichAnswer,
    build_candidate,
    encode_block,
)
from tests.support.vendor_streams import encode_named, encode_unnamed


def _check(answer: Answer, extra: Mapping[str, Any]) -> None:
    assert (answer.text, answer.extra) == ("It", extra)


@pytest.mark.parametrize("case", RICH_ANSWERS.values(), ids=RICH_ANSWERS)
def test_content_beside_the_text_reaches_the_caller(case: RichAnswer) -> None:
    """Whole and streamed alike; the pieces of a stream add up to it."""
    call = build_call(case.provider)
    _check(decode(case.provider, call, 200, case.whole).choices[0].message, case.extra)
    result = try_stream(case.provider, call, [case.stream])
    _check(expect_answer(result).choices[0].message, case.extra)
    assert isinstance(result, tuple)
    assert merge_extras(delta.extra for delta in result[0] if delta.extra) == case.extra


@pytest.mark.parametrize("case", RICH_ANSWERS.values(), ids=RICH_ANSWERS)
def test_a_stream_of_such_content_may_be_cut_anywhere(case: RichAnswer) -> None:
    """Reads of one byte give the same deltas as one read."""
    call = build_call(case.provider)
    singly = [case.stream[place : place + 1] for place in range(len(case.stream))]
    assert try_stream(case.provider, call, singly) == try_stream(case.provider, call, [case.stream])


def test_an_answer_of_nothing_but_an_image_is_an_answer() -> None:
    """No text, and no error."""
    whole = build_candidate({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finishReason="STOP")
    for result in (
        decode(GEMINI, build_call(GEMINI), 200, whole),
        try_stream(GEMINI, build_call(GEMINI), [encode_unnamed(whole)]),
    ):
        message = expect_answer(result).choices[0].message
        assert (message.text, message.extra) == ("", {"images": [IMAGE]})


REFUSALS: Mapping[str, tuple[HttpProvider, Any, bytes]] = {
    "OpenAI": (
        OPENAI,
        {"choices": [{"message": {"content": "It", "refusal": "I must not."}, "finish_reason": "stop"}]},
        encode_chunks(
            build_chunk("It"), build_chunk(refusal="I must "), build_chunk(refusal="not."), build_chunk(finish="stop")
        ),
    ),
    "OpenAI's parts": (
        OPENAI,
        {
            "choices": [
                {
                    "message": {"content": [{"type": "text", "text": "It"}, {"type": "refusal", "refusal": "I must not."}]},
                    "finish_reason": "stop",
                }
            ]
        },
        encode_chunks(build_chunk("It"), build_chunk([{"type": "refusal", "refusal": "I must not."}], "stop")),
    ),
    "Anthropic": (
        ANTHROPIC,
        {
            "content": [{"type": "text", "text": "It"}],
            "stop_reason": "refusal",
            "stop_details": {"explanation": "I must not."},
        },
        encode_named(
            {"type": "message_start", "message": {"id": "m"}},
            *encode_block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "It"}),
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "I must not."}}},
            {"type": "message_stop"},
        ),
    ),
    "Gemini": (
        GEMINI,
        build_candidate({"text": "It"}, finishReason="SAFETY", finishMessage="I must not."),
        encode_unnamed(build_candidate({"text": "It"}), build_candidate(finishReason="SAFETY", finishMessage="I must not.")),
    ),
}


@pytest.mark.parametrize(("provider", "whole", "stream"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_behind_text_reaches_the_caller(provider: HttpProvider, whole: Any, stream: bytes) -> None:
    """As a delta of its own in a stream."""
    call = build_call(provider)
    result = try_stream(provider, call, [stream])
    for answer in (decode(provider, call, 200, whole), expect_answer(result)):
        assert (answer.choices[0].message.text, answer.choices[0].message.refusal) == ("It", "I must not.")
    assert isinstance(result, tuple)
    assert "".join(delta.refusal or "" for delta in result[0]) == "I must not."


def test_a_blocked_prompt_tells_why() -> None:
    body = {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "Not this."}}
    call = build_call(GEMINI)
    for result in (decode(GEMINI, call, 200, body), try_stream(GEMINI, call, [encode_unnamed(body)])):
        (choice,) = expect_answer(result).choices
        assert (choice.message.refusal, choice.finish_reason) == ("Not this.", "content_filter")
