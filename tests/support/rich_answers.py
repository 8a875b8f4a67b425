"""Answers that hold content beside their text, in every wire format, whole and as a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.ollama import Ollama
from fanout.providers.openai.responses import Responses
from fanout.providers.transport.http import HttpProvider
from tests.support.bedrock_format import UP as BEDROCK
from tests.support.bedrock_format import build_answer, encode_delta, encode_event
from tests.support.openai_format import UP as OPENAI
from tests.support.openai_format import build_chunk, encode_chunks
from tests.support.provider_calls import build_adapter
from tests.support.vendor_streams import encode_named, encode_unnamed

ANTHROPIC, COHERE, GEMINI, OLLAMA, RESPONSES = map(build_adapter, (Anthropic, Cohere, Gemini, Ollama, Responses))
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
SEARCH_CALL = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
NOTE = {"type": "url_citation", "url": "https://e.org"}
MESSAGE = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "It", "annotations": [NOTE]}]}
RESPONSE = {"object": "response", "status": "completed", "output": [SEARCH_CALL, MESSAGE]}
SKETCH = {"inlineData": {"mimeType": "image/png", "data": "c2s="}, "thought": True}


class RichAnswer(NamedTuple):
    """An answer in one format, whole and as a stream, and what stands in it beside the text `It`."""

    provider: HttpProvider
    whole: Any
    stream: bytes
    extra: Mapping[str, Any]


def encode_block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def build_candidate(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": list(parts)}, **fields}], "modelVersion": "g"}


def _encode_lines(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _encode_openai_fields(**fields: Any) -> RichAnswer:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "It", **fields}, "finish_reason": "stop"}]}
    return RichAnswer(
        OPENAI, whole, encode_chunks(build_chunk("It"), build_chunk(**fields), build_chunk(finish="stop")), fields
    )


def _put_beside_choices(**fields: Any) -> RichAnswer:
    """Perplexity repeats them with every chunk."""
    whole = {"choices": [{"index": 0, "message": {"content": "It"}, "finish_reason": "stop"}], **fields}
    chunks = [{**build_chunk("I"), **{name: value[:1] for name, value in fields.items()}}]
    chunks += [{**chunk, **fields} for chunk in (build_chunk("t"), build_chunk(finish="stop"))]
    return RichAnswer(OPENAI, whole, encode_chunks(*chunks), fields)


RICH_ANSWERS = {
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
    "Anthropic": RichAnswer(
        ANTHROPIC,
        {
            "type": "message",
            "content": [SIGNED, HIDDEN, SEARCH, FOUND, {"type": "text", "text": "It", "citations": [CITATION]}],
            "stop_reason": "end_turn",
        },
        encode_named(
            {"type": "message_start", "message": {"id": "m"}},
            *encode_block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "hm, "},
                {"type": "thinking_delta", "thinking": "yes"},
                {"type": "signature_delta", "signature": "c2ln"},
            ),
            *encode_block(1, HIDDEN),
            *encode_block(
                2,
                {**SEARCH, "input": {}},
                {"type": "input_json_delta", "partial_json": '{"query"'},
                {"type": "input_json_delta", "partial_json": ': "x"}'},
            ),
            *encode_block(3, FOUND),
            *encode_block(
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
    "Gemini": RichAnswer(
        GEMINI,
        build_candidate(
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
            build_candidate(SKETCH, {"text": "It"}),
            build_candidate(
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"inlineData": {"mimeType": "audio/L16", "data": "aGkx"}},
            ),
            build_candidate(CODE, finishReason="STOP", groundingMetadata=SOURCES),
        ),
        {
            "images": [IMAGE],
            "audio": {"data": "aGkx", "mime_type": "audio/L16"},
            "content_parts": [SKETCH, CODE],
            "groundingMetadata": SOURCES,
        },
    ),
    "Bedrock": RichAnswer(
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
    "Cohere": RichAnswer(
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
    "Ollama": RichAnswer(
        OLLAMA,
        {"message": {"content": "It", "images": ["aGk="]}, "done": True, "done_reason": "stop"},
        _encode_lines({"message": {"content": "It", "images": ["aGk="]}}, {"message": {"content": ""}, "done": True}),
        {"images": [IMAGE]},
    ),
    "Responses": RichAnswer(
        RESPONSES,
        RESPONSE,
        encode_named(
            {"type": "response.output_item.done", "output_index": 0, "item": SEARCH_CALL},
            {"type": "response.output_item.added", "output_index": 1, "item": {**MESSAGE, "content": []}},
            {"type": "response.output_text.delta", "output_index": 1, "delta": "It"},
            {"type": "response.output_item.done", "output_index": 1, "item": MESSAGE},
            {"type": "response.completed", "response": RESPONSE},
        ),
        {
            "output_items": [SEARCH_CALL],
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://e.org"}}],
        },
    ),
}
