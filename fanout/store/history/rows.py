"""Rows of a comparison, made of its facts, and of the texts of its answers where those are kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.merge import find_failure, list_choices
from fanout.core.schema import Choice, Failure
from fanout.core.usage import UsageTotals, sum_known
from fanout.store.engine.text_columns import clean_name, clean_text, clean_texts, place_text
from fanout.store.history.facts import CallFacts, ComparisonFacts, list_facts
from fanout.store.history.records import AnswerRow, ComparisonRecord, ComparisonRow, ComparisonRows

PlacedText = tuple[str | None, bytes | None]
"""A short text, or the digest of a long one."""
NO_TEXT: PlacedText = (None, None)
NO_USAGE = (None,) * 5


def to_rows(record: ComparisonRecord, *, full: bool) -> ComparisonRows:
    """Return the rows to write of a comparison; with texts only if `full`, and if its caller does not object."""
    full = full and record.keeps_texts
    facts = ComparisonFacts._make(list_facts(record, full=full))
    if not full:
        return make_rows(facts)
    # By digest: a prompt sent a thousand times, or to many models, is stored once. Long texts go into a table of their own,
    # so that listing comparisons does not read megabytes.
    texts: dict[bytes, str] = {}
    request = place_text(clean_text(record.body.decode(errors="replace")), texts)
    contents = [
        place_text(_dump_content(choice, find_failure(outcome, choice), nth), texts)
        for outcome in record.outcomes
        for nth, choice in enumerate(list_choices(outcome))
    ]
    return make_rows(facts, request, contents)._replace(texts=texts)


def make_rows(facts: ComparisonFacts, request: PlacedText = NO_TEXT, contents: Sequence[PlacedText] = ()) -> ComparisonRows:
    """Return the rows that facts make, with the texts of the request and of each answer, if they are kept."""
    answers: list[AnswerRow] = []
    sums = UsageTotals()
    calls = [CallFacts._make(call) for call in facts.calls]
    for call in calls:
        if call.is_answered:
            sums.add_answer(call, call.cost_usd)
        answers += _to_answer_rows(facts.number, call, contents[len(answers) :])
    # By position, in the order of the columns, and each row as one expression: by name it took nine times as long.
    comparison = (
        facts.number,
        facts.id,
        facts.created,
        clean_name(facts.account_id or ""),
        facts.request_id,
        facts.path,
        facts.stream,
        facts.status,
        sums.calls,
        len(calls) - sums.calls,
        sums.input_tokens,
        sums.output_tokens,
        sums.cached_tokens,
        sums.unknown_usage,
        sums.cost_usd,
        sums.cost_unknown,
        sum_known(call.cache_write_tokens for call in calls),
        sum_known(call.reasoning_tokens for call in calls),
        facts.total_ms,
        facts.overhead_ms,
        bytes.fromhex(facts.digest),
        *request,
    )
    metadata = {clean_text(name): clean_text(value) for name, value in facts.metadata.items()}
    return ComparisonRows(ComparisonRow._make(comparison), answers, metadata, {})


def _to_answer_rows(number: int, call: CallFacts, contents: Sequence[PlacedText]) -> list[AnswerRow]:
    """Return a row for each answer that a call should have given."""
    ends = call.ends if isinstance(call.ends, list) else [(call.ends, None, None, None)]
    names = clean_name(call.model), clean_name(call.label), call.provider, _clean_optional(call.upstream_model)
    # Usage and cost of the call stand on its first answer alone, so that sums over answers count them once.
    usage = (call.input_tokens, call.output_tokens, call.cached_input_tokens, call.cost_usd, call.cost_source)
    times = (call.queued_ms, call.ttft_ms, call.call_ms, call.total_ms, call.attempts)
    rows: list[AnswerRow] = []
    for nth, (finish_reason, kind, code, status) in enumerate(ends):
        row = (
            number,
            call.place + nth,
            call.entry,
            call.sample + nth,
            call.prompt,
            *names,
            finish_reason,
            kind,
            _clean_optional(code),
            status,
            *(NO_USAGE if nth else usage),
            *times,
            *(contents[nth] if contents else NO_TEXT),
            call.is_member,
            call.fusion,
        )
        rows.append(AnswerRow._make(row))
    return rows


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
        return to_json(clean_texts(content), inf_nan_mode="null", fallback=str).decode()


def _clean_optional(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
