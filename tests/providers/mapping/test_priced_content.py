"""Costs of answers with content that their tokens do not tell of."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.core.schema import Completion
from fanout.dispatch import pricing
from tests.support.openai_format import decode_answer
from tests.support.provider_calls import build_call, decode
from tests.support.rich_answers import GEMINI, IMAGE, RESPONSES, build_candidate

TOKENS = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
TEXT_ITEM = {"type": "message", "content": [{"type": "output_text", "text": "It", "annotations": []}]}


def price(completion: Completion, provider: str, model: str) -> float | None:
    cost = pricing.compute_cost(completion.usage, None, provider, model)
    return cost.usd if cost else None


def respond(*items: dict[str, Any]) -> Completion:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}
    return decode(RESPONSES, build_call(RESPONSES), 200, {"status": "completed", "output": [*items, TEXT_ITEM], "usage": usage})


@pytest.mark.parametrize(
    "beside",
    [
        {"images": [IMAGE]},
        {"audio": {"id": "a", "data": "aGk="}},
        {"executed_tools": [{"type": "search"}]},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://e.org"}}]},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_content_that_no_tokens_tell_of_makes_the_cost_unknown(beside: dict[str, Any]) -> None:
    """Text alone would be priced; a cost that the provider states itself includes it."""
    choice = {"message": {"content": "It", **beside}, "finish_reason": "stop"}
    assert price(decode_answer({"choices": [choice], "usage": TOKENS}), "openai", "gpt-4o") is None
    plain = {"message": {"content": "It"}, "finish_reason": "stop"}
    assert price(decode_answer({"choices": [plain], "usage": TOKENS}), "openai", "gpt-4o") == pytest.approx(0.0125)
    assert price(decode_answer({"choices": [choice], "usage": {**TOKENS, "cost": 0.5}}), "openai", "gpt-4o") == 0.5


@pytest.mark.parametrize("is_counted", [True, False])
def test_an_image_is_priced_only_where_its_tokens_are_counted(is_counted: bool) -> None:
    body = build_candidate({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finishReason="STOP")
    details = {"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1000}]} if is_counted else {}
    body["usageMetadata"] = {"promptTokenCount": 0, "candidatesTokenCount": 1000, "totalTokenCount": 1000, **details}
    expected = pytest.approx(0.03) if is_counted else None
    assert price(decode(GEMINI, build_call(GEMINI), 200, body), "google", "gemini-2.5-flash-image") == expected


@pytest.mark.parametrize(
    ("items", "fee"),
    [
        ((), 0.0),
        (({"type": "web_search_call"},), 0.01),
        (
            (
                {"type": "web_search_call", "action": {"type": "search"}},
                {"type": "web_search_call", "action": {"type": "open_page"}},
            ),
            0.01,
        ),
        (({"type": "file_search_call"}, {"type": "file_search_call"}), 0.005),
        (({"type": "code_interpreter_call"},), None),
        (({"type": "image_generation_call", "result": "aGk="},), None),
        (({"type": "mcp_call"}, {"type": "function_call", "name": "f", "arguments": "{}"}), 0.0),
    ],
)
def test_tools_that_openai_runs_are_part_of_the_cost(items: tuple[dict[str, Any], ...], fee: float | None) -> None:
    """At their published prices; without one, the cost is unknown."""
    assert price(respond(*items), "openai", "gpt-4.1") == (None if fee is None else pytest.approx(2.0 + fee))
