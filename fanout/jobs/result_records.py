"""Result records of jobs: a flat record for each unit that has ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic_core import from_json

from fanout.core.json_text import JsonObject
from fanout.core.schema import Completion, Failure
from fanout.core.units import to_ms
from fanout.core.usage import total_tokens
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.store.jobs.records import ResultRow

ColumnKind = Literal["text", "whole", "number", "time"]
COLUMNS: Mapping[str, ColumnKind] = {
    "item": "whole",
    "line": "whole",
    "custom_id": "text",
    "entry": "whole",
    "repeat": "whole",
    "model": "text",
    "label": "text",
    "provider": "text",
    "upstream_model": "text",
    "prompt": "text",  # or a row's messages
    "reference": "text",
    "text": "text",
    "reasoning": "text",
    "tool_calls": "text",
    "finish_reason": "text",
    "native_finish_reason": "text",
    "prompt_tokens": "whole",
    "completion_tokens": "whole",
    "total_tokens": "whole",
    "cached_tokens": "whole",
    "queued_ms": "whole",
    "ttft_ms": "whole",
    "prediction_time_ms": "whole",
    "total_ms": "whole",
    "attempts": "whole",
    "tokens_per_second": "number",
    "cost_usd": "number",
    "cost_source": "text",
    "ignored_parameters": "text",
    "adjusted_parameters": "text",
    "error_kind": "text",
    "error_code": "text",
    "error_message": "text",
    "request_id": "text",
    "cached_from": "text",
    "ended": "time",  # in a record Unix seconds
    "values": "text",
}
ResultRecord = Mapping[str, Any]
"""Values by the names of `COLUMNS`; a name that is not known is absent."""


def build_records(rows: Iterable[ResultRow]) -> Iterator[JsonObject]:
    """Yield the records of rows of `Results.list_results`, in their order."""
    for row in rows:
        outcome = StoredOutcome.from_json(row.record)
        yield {
            "item": row.item,
            "line": row.line,
            "custom_id": row.custom_id,
            "entry": row.entry,
            "repeat": row.repeat,
            "model": outcome.model,
            "label": outcome.label,
            "provider": outcome.provider,
            "upstream_model": outcome.upstream_model,
            "attempts": row.attempt,
            "cached_from": row.cached_from,
            "ended": row.ended,
            **_describe_input(from_json(row.body)),
            **_describe_cost(outcome),
            **(_describe_answer(outcome.completion) if outcome.completion else {}),
            **(_describe_failure(outcome.failure) if outcome.failure else {}),
        }


def _describe_input(body: JsonObject) -> JsonObject:
    """Return the columns of a row of prompts, or of a request's body."""
    kept: JsonObject = {name: body[name] for name in ("reference", "values") if name in body}
    return {"prompt": body.get("prompt", body.get("messages")), **kept}


def _describe_cost(outcome: StoredOutcome) -> JsonObject:
    timing, cost = outcome.timing, outcome.cost
    usage = outcome.completion.usage if outcome.completion else None
    tokens = usage.output_tokens if usage else None
    return {
        "queued_ms": to_ms(timing.queued_s),
        "ttft_ms": to_ms(timing.first_token_s),
        "prediction_time_ms": to_ms(timing.call_s),
        "total_ms": to_ms(timing.total_s),
        "tokens_per_second": round(tokens / timing.call_s, 2) if tokens is not None and timing.call_s else None,
        "cost_usd": cost.usd if cost else None,
        "cost_source": cost.source if cost else None,
        "ignored_parameters": list(outcome.ignored),
        "adjusted_parameters": {name: {"asked": wanted, "sent": sent} for name, (wanted, sent) in outcome.adjusted.items()},
    }


def _describe_answer(completion: Completion) -> JsonObject:
    """Return the columns of the first choice: samples of a job are units of their own."""
    choice = completion.choices[0] if completion.choices else None
    message = choice.message if choice else None
    usage = completion.usage
    return {
        "upstream_model": completion.model,
        "text": message.text if message else None,
        "reasoning": message.reasoning if message else None,
        "tool_calls": list(message.tool_calls) if message and message.tool_calls else None,
        "finish_reason": choice.finish_reason if choice else None,
        "native_finish_reason": choice.native_finish_reason if choice else None,
        "request_id": completion.request_id,
        "prompt_tokens": usage.input_tokens if usage else None,
        "completion_tokens": usage.output_tokens if usage else None,
        "total_tokens": total_tokens(usage.input_tokens, usage.output_tokens) if usage else None,
        "cached_tokens": usage.cached_input_tokens if usage else None,
    }


def _describe_failure(failure: Failure) -> JsonObject:
    return {
        "text": failure.partial,
        "error_kind": failure.kind,
        "error_code": failure.code or failure.kind,
        "error_message": failure.message,
        "request_id": failure.request_id,
    }
