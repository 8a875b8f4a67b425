"""Examples of requests and of an answer, for the reference."""

from __future__ import annotations

from fanout.core.json_text import JsonObject

REQUESTS: dict[str, JsonObject] = {
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
    "one answer made of two models' answers": {
        "model": {"fusion": {"of": ["local/ngram-3", "local/ngram-5"], "by": "local/ngram-5"}, "label": "mix"},
        "prompt": "The return statement",
        "max_tokens": 30,
    },
    "what would be called": {"model": "embedded", "prompt": "The return statement", "dry_run": True},
}


def _choice(index: int, model: str, **more: object) -> JsonObject:
    place = {"index": index, "entry": index, "sample": 0, "model": model, "label": model}
    return {**place, "text": "", "created": 1795163400, "logprobs": None, "native_finish_reason": None, **more}


_UNKNOWN = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None, "cached_tokens": None}
ANSWER: JsonObject = {
    "id": "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e",
    "object": "text_completion",
    "created": "2026-11-20T09:30:00.000Z",
    "choices": [
        _choice(
            0,
            "gpt-6-luna",
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
            upstream_model="gpt-6-luna",
            timing={"queued_ms": 0, "ttft_ms": None, "total_ms": 415, "attempts": 1, "tokens_per_second": 16.99},
            cost_usd=0.0000047,
            cost_source="genai-prices 0.2.3: gpt-6-luna",
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
    "cost_usd": 0.0000047,
    "cost_unknown": 0,
    "timing": {"total_ms": 5003, "overhead_ms": 3},
    "metadata": {"experiment": "7"},
}
