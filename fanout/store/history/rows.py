"""Rows of a comparison, made of how it ended. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.fusion import render_fusion
from fanout.core.json_text import dump
from fanout.core.merge import find_failure, get_finish_reason, list_choices
from fanout.core.schema import Choice, Completion, Failure, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import NO_USAGE, Usage, UsageTotals, add_known, plausible_usage, plausible_usd
from fanout.store.engine.text_columns import clean_name, clean_text, place_text
from fanout.store.history.records import AnswerRow, ComparisonRecord, ComparisonRow, ComparisonRows

NOT_KEPT = "texts are not kept"


def to_rows(record: ComparisonRecord, *, full: bool) -> ComparisonRows:
    """Return the rows to write of a comparison; with texts only if `full`, and if its caller does not object."""
    full = full and record.keeps_texts
    # By digest: a prompt sent a thousand times, or to many models, is stored once.
    texts: dict[bytes, str] = {}
    body = clean_text(record.body.decode(errors="replace")) if full else None
    # Long texts go into a table of their own, so that listing comparisons does not read megabytes.
    request, request_digest = place_text(body, texts)
    answers: list[AnswerRow] = []
    sums, slowest_s = UsageTotals(), 0.0
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    for outcome in record.outcomes:
        usage, usd = NO_USAGE, plausible_usd(outcome.cost)
        if isinstance(outcome.result, Completion):
            usage = plausible_usage(outcome.result.usage)
            sums.add_answer(usage, usd)
            if usage.cache_write_tokens is not None:
                cache_write_tokens = add_known(cache_write_tokens, usage.cache_write_tokens)
            if usage.reasoning_tokens is not None:
                reasoning_tokens = add_known(reasoning_tokens, usage.reasoning_tokens)
        if outcome.timing.total_s > slowest_s:
            slowest_s = outcome.timing.total_s
        answers += _to_answer_rows(record.number, outcome, usage, usd, texts if full else None)
    # By position, in the order of the columns, and each row as one expression: by name it took nine times as long.
    comparison = (
        record.number,
        record.id,
        record.created,
        clean_name(record.account_id or ""),
        record.request_id,
        record.path,
        record.stream,
        record.status,
        sums.calls,
        len(record.outcomes) - sums.calls,
        sums.input_tokens,
        sums.output_tokens,
        sums.cached_tokens,
        sums.unknown_usage,
        sums.cost_usd,
        sums.cost_unknown,
        cache_write_tokens,
        reasoning_tokens,
        to_ms(record.total_s),
        # Calls run at the same time: what exceeds the slowest of them is Fanout's own.
        to_ms(max(record.total_s - slowest_s, 0.0)),
        # Kept even where texts are not: equal requests can be found without knowing what they were.
        hashlib.sha256(record.body).digest(),
        request,
        request_digest,
    )
    metadata = {clean_text(name): clean_text(value) for name, value in record.metadata.items()}
    return ComparisonRows(ComparisonRow._make(comparison), answers, metadata, texts)


def _to_answer_rows(
    number: int, outcome: Outcome, usage: Usage, usd: float | None, texts: dict[bytes, str] | None
) -> list[AnswerRow]:
    """Return a row for each answer that a call should have given; long texts are put into `texts`, `None`: none are kept."""
    call, result, timing, cost = outcome.call, outcome.result, outcome.timing, outcome.cost
    target, source = call.target, cost.source if cost is not None else None
    answered = result.model if isinstance(result, Completion) else None
    name, label, upstream_model = _clean_names(target.name, target.label, answered or target.model)
    # No function stands between: this runs for every answer, and each is rounded as `to_ms` does.
    queued_ms, total_ms = round(timing.queued_s * 1e3), round(timing.total_s * 1e3)
    call_ms = None if timing.call_s is None else round(timing.call_s * 1e3)
    first_token_ms = None if timing.first_token_s is None else round(timing.first_token_s * 1e3)
    rows: list[AnswerRow] = []
    for nth, choice in enumerate(list_choices(outcome)):
        failure = find_failure(outcome, choice) if choice is None else None
        content, digest = None, None
        if texts is not None:
            content, digest = place_text(_dump_content(choice, failure, nth), texts)
        row = (
            number,
            call.index + nth,
            call.entry,
            call.sample + nth,
            call.prompt_index,
            name,
            label,
            target.provider,
            upstream_model,
            get_finish_reason(choice, failure) if choice is None else choice.finish_reason,
            failure.kind if failure else None,
            _clean_optional(failure.code) if failure else None,
            failure.status if failure else None,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usd,
            source,
            queued_ms,
            first_token_ms,
            call_ms,
            total_ms,
            timing.attempts,
            content,
            digest,
            call.is_member,
            _dump_fusion(outcome, full=texts is not None) if call.fusion else None,
        )
        rows.append(tuple.__new__(AnswerRow, row))  # what `_make` does, without its call
        # Usage and cost of the call stand on its first answer alone, so that sums over answers count them once.
        usage, usd, source = NO_USAGE, None, None
    return rows


def _dump_fusion(outcome: Outcome, *, full: bool) -> str:
    call, cost = outcome.call, outcome.cost
    assert call.fusion
    found = render_fusion(call.fusion, cost.usd if cost else None, is_answered=isinstance(outcome.result, Completion))
    for member in found["members"]:
        # A failure's message may quote a prompt, as that of an answer may.
        if member["left_out"] is not None and not full:
            member["left_out"] = NOT_KEPT
    return dump(_clean_value(found)).decode()


def _dump_content(choice: Choice | None, failure: Failure | None, nth: int) -> str:
    if choice:
        message = choice.message
        others = {
            "reasoning": message.reasoning,
            "refusal": message.refusal,
            "tool_calls": message.tool_calls,
            "other_content": message.other_content,  # the names alone: an image takes megabytes
        }
        content = {"text": message.text, **{name: value for name, value in others.items() if value}}
    else:
        # A stream's text belongs to its first answer; copied to the others it would count as theirs.
        partial = failure.partial if failure and nth == 0 else None
        content = {"text": partial or "", "message": failure.message if failure else ""}
    try:
        return to_json(content, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # a lone surrogate
        return to_json(_clean_value(content), inf_nan_mode="null", fallback=str).decode()


def _clean_value(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(name)): _clean_value(inner) for name, inner in value.items()}
    return [_clean_value(inner) for inner in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=1024)  # the same names stand in nearly every row; bounded, because callers choose them
def _clean_names(name: str, label: str, upstream_model: str | None) -> tuple[str, str, str | None]:
    return clean_name(name), clean_name(label), _clean_optional(upstream_model)


def _clean_optional(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
