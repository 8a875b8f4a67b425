"""Content beside the text in every wire format: whole and streamed it reaches the caller alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from fanout.core.schema import Answer
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.mapping.other_content import merge_extras
from fanout.providers.ollama import Ollama
from fanout.providers.transport.http import HttpProvider
from tests.support.bedrock_format import UP as BEDROCK
from tests.support.bedrock_format import build_answer, encode_delta, encode_event
from tests.support.openai_format import UP as OPENAI
from tests.support.openai_format import build_chunk, encode_chunks
from tests.support.provider_calls import build_adapter, build_call, decode, expect_answer, try_stream
from tests.support.vendor_streams import encode_named, encode_unnamed

ANTHROPIC, COHERE, GEMINI, OLLAMA = map(build_adapter, (Anthropic, Cohere, Gemini, Ollama))
URL = "data:image/png;base64,aGk="
IMAGE = {"type": "image_url", "image_url": {"url": URL}}
CITATION = {"type": "char_location", "cited_text": "It", "document_index": 0}
SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "s1",
    "content": [{"type": "web_search_result", "url": "https://e.org"}],
}
SIGNED = {"type": "thinking", "thinking": "hm, yes", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHl6"}
SOURCES = {"groundingChunks": [{"web": {"uri": "https://e.org"}}]}
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
SKETCH = {"inlineData": {"mimeType": "image/png", "data": "c2s="}, "thought": True}


class Case(NamedTuple):
    """An answer in one format, whole and as a stream, and what stands in it beside the text `It`."""

    provider: HttpProvider
    whole: Any
    stream: bytes
    extra: Mapping[str, Any]


def _encode_block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _build_candidate(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": list(parts)}, **fields}], "modelVersion": "g"}


def _encode_lines(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _encode_openai_fields(**fields: Any) -> Case:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "It", **fields}, "finish_reason": "stop"}]}
    return Case(OPENAI, whole, encode_chunks(build_chunk("It"), build_chunk(**fields), build_chunk(finish="stop")), fields)


def _put_beside_choices(**fields: Any) -> Case:
    """Perplexity repeats them with every chunk."""
    whole = {"choices": [{"index": 0, "message": {"content": "It"}, "finish_reason": "stop"}], **fields}
    chunks = [{**build_chunk("I"), **{name: value[:1] for name, value in fields.items()}}]
    chunks += [{**chunk, **fields} for chunk in (build_chunk("t"), build_chunk(finish="stop"))]
    return Case(OPENAI, whole, encode_chunks(*chunks), fields)


CASES = {
    "OpenRouter's images": _encode_openai_fields(images=[IMAGE]),
    "OpenAI's audio": _encode_openai_fields(audio={"id": "a", "data": "aGk=", "expires_at": 1, "transcript": "It"}),
    "annotations": _encode_openai_fields(annotations=[{"type": "url_citation", "url_citation": {"url": "https://e.org"}}]),
    "OpenRouter's thoughts": _encode_openai_fields(
        reasoning_details=[{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    ),
    "Groq's tools": _encode_openai_fields(executed_tools=[{"index": 0, "type": "search", "output": "x"}]),
    "Perplexity's sources": _put_beside_choices(
        citations=["https://e.org/1", "https://e.org/2"], search_results=[{"url": "x"}]
    ),
    "Anthropic": Case(
        ANTHROPIC,
        {
            "type": "message",
            "content": [SIGNED, HIDDEN, SEARCH, FOUND, {"type": "text", "text": "It", "citations": [CITATION]}],
            "stop_reason": "end_turn",
        },
        encode_named(
            {"type": "message_start", "message": {"id": "m"}},
            *_encode_block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "hm, "},
                {"type": "thinking_delta", "thinking": "yes"},
                {"type": "signature_delta", "signature": "c2ln"},
            ),
            *_encode_block(1, HIDDEN),
            *_encode_block(
                2,
                {**SEARCH, "input": {}},
                {"type": "input_json_delta", "partial_json": '{"query"'},
                {"type": "input_json_delta", "partial_json": ': "x"}'},
            ),
            *_encode_block(3, FOUND),
            *_encode_block(
                4,
                {"type": "text", "text": "", "citations": []},
                {"type": "citations_delta", "citation": CITATION},
                {"type": "text_delta", "text": "It"},
            ),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
            {"type": "message_stop"},
        ),
        {"thinking_blocks": [SIGNED, HIDDEN], "content_blocks": [SEARCH, FOUND], "citations": [CITATION]},
    ),
    "Gemini": Case(
        GEMINI,
        _build_candidate(
            SKETCH,
            {"text": "It"},
            {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
            {"inlineData": {"mimeType": "audio/L16", "data": "aGkx"}},
            {"text": "", "thoughtSignature": "x"},
            CODE,
            finishReason="STOP",
            groundingMetadata=SOURCES,
        ),
        encode_unnamed(
            _build_candidate(SKETCH, {"text": "It"}),
            _build_candidate(
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"inlineData": {"mimeType": "audio/L16", "data": "aGkx"}},
            ),
            _build_candidate(CODE, finishReason="STOP", groundingMetadata=SOURCES),
        ),
        {
            "images": [IMAGE],
            "audio": {"data": "aGkx", "mime_type": "audio/L16"},
            "content_parts": [SKETCH, CODE],
            "groundingMetadata": SOURCES,
        },
    ),
    "Bedrock": Case(
        BEDROCK,
        {
            "output": {
                "message": {
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "hm, yes", "signature": "c2ln"}}},
                        {"reasoningContent": {"redactedContent": "eHl6"}},
                        {"citationsContent": {"content": [{"text": "It"}], "citations": [CITATION]}},
                        {"image": {"format": "png", "source": {"bytes": "aGk="}}},
                    ]
                }
            },
            "stopReason": "end_turn",
        },
        b"".join(
            (
                encode_delta(0, reasoningContent={"text": "hm, "}),
                encode_delta(0, reasoningContent={"text": "yes"}),
                encode_delta(0, reasoningContent={"signature": "c2ln"}),
                encode_delta(1, reasoningContent={"redactedContent": "eHl6"}),
                encode_delta(2, text="It"),
                encode_delta(2, citation=CITATION),
                encode_event("contentBlockStart", {"contentBlockIndex": 3, "start": {"image": {"format": "png"}}}),
                encode_delta(3, image={"source": {"bytes": "aGk="}}),
                encode_event("messageStop", {"stopReason": "end_turn"}),
                encode_event("metadata", {"usage": build_answer()["usage"]}),
            )
        ),
        {"thinking_blocks": [SIGNED, HIDDEN], "citations": [CITATION], "images": [IMAGE]},
    ),
    "Cohere": Case(
        COHERE,
        {
            "message": {"content": [{"type": "text", "text": "It"}, IMAGE], "citations": [{"start": 0, "end": 2}]},
            "finish_reason": "COMPLETE",
        },
        encode_named(
            {"type": "content-start", "delta": {"message": {"content": {"type": "text", "text": "It"}}}},
            {"type": "content-start", "delta": {"message": {"content": IMAGE}}},
            {"type": "citation-start", "delta": {"message": {"citations": {"start": 0, "end": 2}}}},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
        ),
        {"images": [IMAGE], "citations": [{"start": 0, "end": 2}]},
    ),
    "Ollama": Case(
        OLLAMA,
        {"message": {"content": "It", "images": ["aGk="]}, "done": True, "done_reason": "stop"},
        _encode_lines({"message": {"content": "It", "images": ["aGk="]}}, {"message": {"content": ""}, "done": True}),
        {"images": [IMAGE]},
    ),
}


def _check(answer: Answer, extra: Mapping[str, Any]) -> None:
    assert (answer.text, answer.extra) == ("It", extra)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_content_beside_the_text_reaches_the_caller(case: Case) -> None:
    """Whole and streamed alike; the pieces of a stream add up to it."""
    call = build_call(case.provider)
    _check(decode(case.provider, call, 200, case.whole).choices[0].message, case.extra)
    result = try_stream(case.provider, call, [case.stream])
    _check(expect_answer(result).choices[0].message, case.extra)
    assert isinstance(result, tuple)
    assert merge_extras(delta.extra for delta in result[0] if delta.extra) == case.extra


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_stream_of_such_content_may_be_cut_anywhere(case: Case) -> None:
    """Reads of one byte give the same deltas as one read."""
    call = build_call(case.provider)
    singly = [case.stream[place : place + 1] for place in range(len(case.stream))]
    assert try_stream(case.provider, call, singly) == try_stream(case.provider, call, [case.stream])


def test_an_answer_of_nothing_but_an_image_is_an_answer() -> None:
    """No text, and no error."""
    whole = _build_candidate({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finishReason="STOP")
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
            *_encode_block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "It"}),
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "I must not."}}},
            {"type": "message_stop"},
        ),
    ),
    "Gemini": (
        GEMINI,
        _build_candidate({"text": "It"}, finishReason="SAFETY", finishMessage="I must not."),
        encode_unnamed(_build_candidate({"text": "It"}), _build_candidate(finishReason="SAFETY", finishMessage="I must not.")),
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
