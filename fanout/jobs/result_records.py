"""Units that have ended, as the flat records that are exported: the names are those of `export.COLUMNS`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Row

from fanout.core.schema import Completion, Failure
from fanout.core.units import to_ms
from fanout.core.usage import Usage
from fanout.jobs.stored_outcome import StoredOutcome


def build_records(rows: Iterable[Row[Any]]) -> Iterator[dict[str, Any]]:
    """The records of rows of `JobStore.results`, in their order. What is not known is absent."""
    for row in rows:
        record = StoredOutcome.from_json(row.record)
        yield {
            "item": row.item,
            "line": row.line,
            "custom_id": row.custom_id,
            "entry": row.entry,
            "repeat": row.repeat,
            "model": record.model,
            "label": record.label,
            "provider": record.provider,
            "upstream_model": record.upstream_model,
            "attempts": row.attempt,
            "cached_from": row.cached_from,
            "ended": row.ended,
            **_asked(from_json(row.body)),
            **_timed(record),
            **(_answered(record.completion) if record.completion else {}),
            **(_failed(record.failure) if record.failure else {}),
        }


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of prompts, or a request's body, says of the question."""
    asked = {"prompt": body.get("prompt", body.get("messages"))}
    return {**asked, **{name: body[name] for name in ("reference", "values") if name in body}}


def _timed(record: StoredOutcome) -> dict[str, Any]:
    timing, cost = record.timing, record.cost
    usage = record.completion.usage if record.completion else None
    tokens = usage.output_tokens if usage else None
    return {
        "queued_ms": to_ms(timing.queued_s),
        "ttft_ms": to_ms(timing.first_token_s),
        "prediction_time_ms": to_ms(timing.call_s),
        "total_ms": to_ms(timing.total_s),
        "tokens_per_second": round(tokens / timing.call_s, 2) if tokens is not None and timing.call_s else None,
        "cost_usd": cost.usd if cost else None,
        "cost_source": cost.source if cost else None,
        "ignored_parameters": list(record.ignored),
        "adjusted_parameters": {name: {"asked": asked, "sent": sent} for name, (asked, sent) in record.adjusted.items()},
    }


def _answered(completion: Completion) -> dict[str, Any]:
    """Its first answer: samples of a job are units of their own."""
    choice = completion.choices[0] if completion.choices else None
    said = choice.message if choice else None
    return {
        "upstream_model": completion.model,
        "text": said.text if said else None,
        "reasoning": said.reasoning if said else None,
        "tool_calls": list(said.tool_calls) if said and said.tool_calls else None,
        "finish_reason": choice.finish_reason if choice else None,
        "native_finish_reason": choice.native_finish_reason if choice else None,
        "request_id": completion.request_id,
        **(_usage(completion.usage) if completion.usage else {}),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    read, wrote = usage.input_tokens, usage.output_tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": wrote,
        "total_tokens": None if read is None or wrote is None else read + wrote,
        "cached_tokens": usage.cached_input_tokens,
    }


def _failed(failure: Failure) -> dict[str, Any]:
    return {
        "text": failure.partial,
        "error_kind": failure.kind,
        "error_code": failure.code or failure.kind,
        "error_message": failure.message,
        "request_id": failure.request_id,
    }
