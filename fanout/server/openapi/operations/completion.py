"""`POST /v1/completion`, described."""

from __future__ import annotations

from typing import Any, Literal

from fanout.core.schema import Kind
from fanout.rendering.errors import ChoiceErrorJson
from fanout.server.dialects.thiggle import CompletionBody
from fanout.server.openapi.endpoint import Events
from fanout.server.openapi.operations.answers import (
    Adjustment,
    Ended,
    LegacyLogprobs,
    Place,
    Said,
    TotalTiming,
    TotalUsage,
)
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import calling


class Written(Place):
    text: str
    """What had arrived, where a stream broke."""
    logprobs: LegacyLogprobs | None


class ComparisonChoice(Ended, Written):
    """One model's answer, or why it gave none."""

    created: int
    """Unix seconds."""


class Piece(Written):
    """A piece of one answer's text, as it came."""

    finish_reason: None


class ComparisonHead(Said):
    id: str
    """A UUID."""
    object: Literal["text_completion"]
    created: str
    """RFC 3339, UTC."""


class Comparison(ComparisonHead):
    """The answers side by side, in the order of the request, failures in their places."""

    choices: list[ComparisonChoice]
    usage: TotalUsage
    cost_usd: float | None
    cost_unknown: int
    """Answers with no known price."""
    timing: TotalTiming
    metadata: dict[str, str]
    """Yours, returned."""


class DryCall(Place):
    """A call that would be made."""

    provider: str | None
    upstream_model: str | None
    kind: Kind
    messages: list[dict[str, Any]] | None
    prompt: str | None
    parameters: dict[str, Any]
    """By the provider's own names."""
    ignored_parameters: list[str]
    adjusted_parameters: dict[str, Adjustment]
    error: ChoiceErrorJson | None
    """Why it would not be made."""


class DryRun(ComparisonHead):
    """What `dry_run` answers."""

    calls: list[DryCall]


class ComparisonChunk(ComparisonHead):
    """The data of one event. Each holds one choice, or in the last one the totals; `data: [DONE]` ends the stream."""

    choices: list[ComparisonChoice | Piece]
    """A piece; or, at an answer's end, all that is known of it, without text."""
    usage: TotalUsage | None = None
    """Only in the last chunk, like all that follows."""
    cost_usd: float | None = None
    cost_unknown: int | None = None
    timing: TotalTiming | None = None
    metadata: dict[str, str] | None = None


def _choice(index: int, model: str, **more: Any) -> dict[str, Any]:
    place = {"index": index, "entry": index, "sample": 0, "model": model, "label": model}
    return {**place, "text": "", "created": 1795163400, "logprobs": None, "native_finish_reason": None, **more}


_UNKNOWN = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None, "cached_tokens": None}
ANSWER = {
    "id": "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e",
    "object": "text_completion",
    "created": "2026-11-20T09:30:00.000Z",
    "choices": [
        _choice(
            0,
            "gpt-4o-mini",
            text="A lighthouse keeper counts ships.",
            finish_reason="stop",
            usage={
                "prompt_tokens": 12,
                "completion_tokens": 7,
                "total_tokens": 19,
                "cached_tokens": 0,
                "prediction_time_ms": 412,
            },
            provider="openai",
            upstream_model="gpt-4o-mini-2024-07-18",
            timing={"queued_ms": 0, "ttft_ms": None, "total_ms": 415, "attempts": 1, "tokens_per_second": 16.99},
            cost_usd=0.000006,
            cost_source="genai-prices 0.2.3",
            ignored_parameters=[],
            adjusted_parameters={},
            error=None,
        ),
        _choice(
            1,
            "llama-2-70b-chat",
            finish_reason="timeout",
            usage={**_UNKNOWN, "prediction_time_ms": None},
            provider="self-hosted",
            upstream_model="llama-2-70b-chat",
            timing={"queued_ms": 20, "ttft_ms": None, "total_ms": 5000, "attempts": 1, "tokens_per_second": None},
            cost_usd=None,
            cost_source=None,
            ignored_parameters=["top_k"],
            adjusted_parameters={},
            error={
                "message": "no complete answer before the request's deadline",
                "type": "timeout_error",
                "param": None,
                "code": "deadline_exceeded",
                "kind": "timeout",
            },
        ),
    ],
    "usage": {
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "total_tokens": 19,
        "cached_tokens": 0,
        "prediction_time_ms": 5003,
        "unknown": 0,
    },
    "cost_usd": 0.000006,
    "cost_unknown": 0,
    "timing": {"total_ms": 5003, "overhead_ms": 3},
    "metadata": {"experiment": "7"},
}
COMPLETION = Operation(
    id="completion",
    tag="Compare",
    summary="One prompt to many models",
    description="Sends one prompt to every model in `model` at once and answers with all of them side by side, each with its "
    "text, tokens, time and cost, or with why it failed. The status is 200 if at least one answered.\n\n"
    "With `stream`, pieces come as server-sent events as the models write them, each marked with its answer's `index`. "
    "This is Thiggle's endpoint; whatever is not in Thiggle's contract is an addition of Fanout's.",
    body=CompletionBody,
    examples={
        "two models": {"model": ["local/ngram-2", "local/ngram-5"], "prompt": "The return statement", "max_tokens": 30},
        "one model twice, each entry with parameters of its own": {
            "model": [
                {"model": "local/ngram-5", "label": "cold", "temperature": 0},
                {"model": "local/ngram-5", "label": "warm", "temperature": 1, "n": 2},
            ],
            "prompt": "The return statement",
            "max_tokens": 30,
            "seed": 7,
            "metadata": {"experiment": "7"},
        },
        "a stream, ended once one model has answered": {
            "model": ["local/ngram-2", "local/ngram-3", "local/ngram-5"],
            "prompt": "The return statement",
            "stream": True,
            "return_when": "first",
        },
        "what would be called": {"model": "embedded", "prompt": "The return statement", "dry_run": True},
    },
    headers=("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key"),
    answers=calling(
        (Comparison, DryRun),
        Events(ComparisonChunk),
        "Every model's answer or failure; with `dry_run`, what would be called.",
        {"one answered, one failed": ANSWER},
    ),
)
OPERATIONS: Operations = {("POST", "/v1/completion"): COMPLETION}
