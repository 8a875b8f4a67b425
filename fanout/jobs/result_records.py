"""Result records of jobs: a flat record for each unit that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.fusion import FusionJson, render_fusion
from fanout.core.json_text import JsonObject
from fanout.core.sampling import AdjustmentJson, render_adjustments
from fanout.core.schema import Completion, Failure, FailureKind
from fanout.core.units import to_ms
from fanout.core.usage import total_tokens
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.observability.logs import log
from fanout.store.jobs.records import ResultRow


class ScoreJson(TypedDict):
    value: Annotated[float | None, Doc("The score; null: there is none, and `explanation` tells why.")]
    version: Annotated[str, Doc("Type, version and options of the scorer: equal where scores can be compared.")]
    explanation: Annotated[str | None, Doc("Why it is so.")]


class JobResultJson(TypedDict):
    """End of one call. The columns of CSV and Parquet are the same, in this order."""

    item: Annotated[int, Doc("Number of the row, from 0.")]
    line: Annotated[int, Doc("Line of the input, from 1.")]
    custom_id: Annotated[str | None, Doc("Your name for the row.")]
    entry: Annotated[int, Doc("Position of the model in `models`.")]
    repeat: Annotated[int, Doc("Number of the sample.")]
    model: Annotated[str, Doc("The model as you wrote it.")]
    label: Annotated[str, Doc("Your name for the entry; by default the model's.")]
    provider: Annotated[str | None, Doc("Provider that serves the model.")]
    upstream_model: Annotated[str | None, Doc("The model's name as the provider reports it.")]
    prompt: Annotated[Any, Doc("The prompt, or the messages.")]
    reference: Annotated[Any, Doc("The row's reference.")]
    text: Annotated[str | None, Doc("The answer; if it failed, what had arrived of it.")]
    reasoning: Annotated[str | None, Doc("The model's reasoning, if the provider shows it.")]
    tool_calls: Annotated[list[JsonObject] | None, Doc("Tools that the model calls.")]
    refusal: Annotated[str | None, Doc("The model's own words for not answering.")]
    other_content: Annotated[list[str] | None, Doc("What else the answer holds: `image`, `citations`, …; null: nothing.")]
    finish_reason: Annotated[str | None, Doc("Why the model stopped.")]
    native_finish_reason: Annotated[str | None, Doc("The provider's own word for the reason.")]
    prompt_tokens: Annotated[int | None, Doc("Tokens of the prompt, cached ones included.")]
    completion_tokens: Annotated[int | None, Doc("Tokens of the answer, those of its reasoning included.")]
    total_tokens: Annotated[int | None, Doc("Both together; null if either is unknown.")]
    cached_tokens: Annotated[int | None, Doc("Tokens of the prompt that were read from the provider's cache.")]
    queued_ms: Annotated[int | None, Doc("Waiting for the limits set here; never part of the model's own time.")]
    ttft_ms: Annotated[int | None, Doc("From the attempt's start to its first content.")]
    prediction_time_ms: Annotated[int | None, Doc("Time of the successful attempt alone, from its start to its last byte.")]
    total_ms: Annotated[int | None, Doc("Everything, queue and retries included.")]
    attempts: Annotated[int, Doc("Attempts upstream, retries included.")]
    tokens_per_second: Annotated[float | None, Doc("Output tokens per second of the successful attempt.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: the price or the usage is unknown.")]
    cost_source: Annotated[
        str | None,
        Doc("`reported` by the provider, `providers.json`, or genai-prices with its version and the model by whose price."),
    ]
    ignored_parameters: Annotated[list[str], Doc("Parameters that this model cannot take.")]
    adjusted_parameters: Annotated[
        dict[str, AdjustmentJson], Doc("Parameters that were sent with another value than requested.")
    ]
    error_kind: Annotated[FailureKind | None, Doc("Kind of failure; null: the call was answered.")]
    error_code: Annotated[str | None, Doc("What went wrong, for programs.")]
    error_message: Annotated[str | None, Doc("What went wrong, for people.")]
    request_id: Annotated[str | None, Doc("The provider's id of the request.")]
    via: Annotated[Literal["live", "batch"], Doc("`batch`: answered by the provider's batch API, in its own time.")]
    cached_from: Annotated[str | None, Doc("Job whose answer this is.")]
    ended: Annotated[str, Doc("When the call ended: RFC 3339, UTC.")]
    scores: Annotated[dict[str, ScoreJson], Doc("The answer's scores, by the names of their scorers.")]
    fusion: Annotated[FusionJson | None, Doc("The members that a fused answer was made of, and the cost of all.")]
    values: Annotated[dict[str, Any] | None, Doc("The row's other columns.")]


ColumnKind = Literal["text", "whole", "number", "time"]


def _kind_of(name: str, annotation: object) -> ColumnKind:
    """Return how a column is written; what is neither a number nor a time is text, JSON where it has parts."""
    if name == "ended":
        return "time"  # in a record Unix seconds
    types = (annotation, *get_args(annotation))
    return "whole" if int in types else "number" if float in types else "text"


COLUMNS: Mapping[str, ColumnKind] = {name: _kind_of(name, kind) for name, kind in get_type_hints(JobResultJson).items()}
"""Name → kind, in the order of the files."""
UNREADABLE: JsonObject = {
    "error_kind": "internal",
    "error_code": "unreadable_record",
    "error_message": "Fanout could not read what it has stored of this call; its log has the details",
}
ResultRecord = Mapping[str, Any]
"""Values by the names of `COLUMNS`; a name that is not known is absent."""


def build_records(rows: Iterable[ResultRow]) -> Iterator[JsonObject]:
    """Yield the records of rows of `Results.list_results`, in their order."""
    for row in rows:
        try:
            yield _build_record(row)
        except Exception:  # no single record can fail an export
            log.exception("export.record_failed", item=row.item, entry=row.entry, repeat=row.repeat)
            yield {**_describe_unit(row), **UNREADABLE}


def _describe_unit(row: ResultRow) -> JsonObject:
    """Return the columns that need neither the input nor the outcome."""
    return {
        "item": row.item,
        "line": row.line,
        "custom_id": row.custom_id,
        "entry": row.entry,
        "repeat": row.repeat,
        "model": row.model,
        "label": row.model,
        "attempts": row.attempt,
        "cached_from": row.cached_from,
        "ended": row.ended,
    }


def _build_record(row: ResultRow) -> JsonObject:
    # Its names replace the unit's: an answer taken from another job keeps the model that gave it.
    outcome = StoredOutcome.from_json(row.record)
    return {
        **_describe_unit(row),
        "model": outcome.model,
        "label": outcome.label,
        "provider": outcome.provider,
        "upstream_model": outcome.upstream_model,
        "scores": {
            score.label: {"value": score.value, "version": score.version, "explanation": score.explanation}
            for score in row.scores
        },
        **describe_input(from_json(row.body)),
        "via": "batch" if outcome.timing.in_batch else "live",
        **_describe_cost(outcome),
        **(_describe_answer(outcome.completion) if outcome.completion else {}),
        **(_describe_failure(outcome.failure) if outcome.failure else {}),
        **_describe_fusion(outcome),
    }


def _describe_fusion(outcome: StoredOutcome) -> JsonObject:
    if outcome.fusion is None:
        return {}
    cost_usd = outcome.cost.usd if outcome.cost else None
    return {"fusion": render_fusion(outcome.fusion, cost_usd, is_answered=outcome.completion is not None)}


def describe_input(body: JsonObject) -> JsonObject:
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
        # An unknown cost is null, never 0: sums over a column must not hide what was not priced.
        "cost_usd": cost.usd if cost else None,
        "cost_source": cost.source if cost else None,
        "ignored_parameters": list(outcome.ignored),
        "adjusted_parameters": render_adjustments(outcome.adjusted),
    }


def _describe_answer(completion: Completion) -> JsonObject:
    """Return the columns of the first choice: samples of a job are units of their own."""
    # Stored answers of embeddings, and of providers that sent none, have no choice.
    choice = completion.choices[0] if completion.choices else None
    message = choice.message if choice else None
    usage = completion.usage
    return {
        "upstream_model": completion.model,
        "text": message.text if message else None,
        "reasoning": message.reasoning if message else None,
        "tool_calls": list(message.tool_calls) if message and message.tool_calls else None,
        "refusal": message.refusal if message else None,
        "other_content": (message.other_content if message else None) or None,
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
