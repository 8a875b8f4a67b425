"""Records of comparisons: how one ended, and the rows that are kept of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.answer_size import measure_answer
from fanout.core.fusion import render_fusion
from fanout.core.json_text import dump
from fanout.core.merge import find_failure, get_finish_reason, list_choices
from fanout.core.schema import Choice, Completion, Failure, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import NO_USAGE, UsageTotals, add_known, plausible_usage, plausible_usd
from fanout.store.engine.text_columns import clean_name, clean_text, place_text

DAY_S = 86_400
RANDOM_BITS = 10
"""The low bits of a number. The bits above them count microseconds, so numbers last until the year 2255."""
MAX_NUMBER = 2**63 - 1
NOT_KEPT = "texts are not kept"


class ComparisonRow(NamedTuple):
    """A comparison: the columns of its table, in their order."""

    number: int
    id: str
    created: float
    account_id: str
    request_id: str
    path: str
    stream: bool
    status: int
    answered: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    unknown_usage: int
    cost_usd: float | None
    cost_unknown: int
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    total_ms: int
    overhead_ms: int
    digest: bytes
    request: str | None
    request_digest: bytes | None


class AnswerRow(NamedTuple):
    """An answer of a comparison: the columns of its table, in their order."""

    comparison: int
    place: int
    entry: int
    sample: int
    prompt: int | None
    model: str
    label: str
    provider: str | None
    upstream_model: str | None
    finish_reason: str | None
    kind: str | None
    code: str | None
    upstream_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    cost_source: str | None
    queued_ms: int
    ttft_ms: int | None
    call_ms: int | None
    total_ms: int
    attempts: int
    content: str | None
    content_digest: bytes | None
    is_member: bool | None
    fusion: str | None


@dataclass(slots=True)
class ComparisonRecord:
    """A comparison as it ended, with the request's body as it came. Creating one is all that its request waits for."""

    number: int
    id: str
    created: float
    account_id: str | None
    request_id: str
    path: str
    stream: bool
    status: int
    """The HTTP status; 499 if the client left."""
    total_s: float
    metadata: Mapping[str, str]
    body: bytes | bytearray
    outcomes: Sequence[Outcome]
    keeps_texts: bool = True
    """The caller does not object to texts being kept; whether they are is the operator's choice."""

    def __post_init__(self) -> None:
        # Neither vectors nor tokens are kept: they may be many megabytes.
        self.outcomes = [_drop_numbers(outcome) for outcome in self.outcomes]

    @property
    def size_bytes(self) -> int:
        """The memory that it takes, roughly."""
        answers = (measure_answer(outcome.result) for outcome in self.outcomes if isinstance(outcome.result, Completion))
        return len(self.body) + sum(answers) + 1024 * len(self.outcomes)


def _drop_numbers(outcome: Outcome) -> Outcome:
    result = outcome.result
    if isinstance(result, Completion) and (result.vectors or result.tokens):
        return replace(outcome, result=replace(result, vectors=(), tokens=None))
    return outcome


class ComparisonRows(NamedTuple):
    """The rows of a comparison, and its long texts by digest."""

    comparison: ComparisonRow
    answers: Sequence[AnswerRow]
    metadata: Mapping[str, str]
    texts: Mapping[bytes, str]

    @property
    def day(self) -> int:
        return int(self.comparison.created) // DAY_S


@dataclass(slots=True)
class StoredComparison:
    """A comparison read from the store."""

    comparison: ComparisonRow
    entries: Sequence[tuple[int, str, str]] = ()
    """Number, model and label of each."""
    metadata: Mapping[str, str] | None = None
    answers: Sequence[AnswerRow] = ()
    """Only if it was read as a whole; then their long texts, and that of the request, are in place."""


def first_number_at(seconds: float) -> int:
    """Return the lowest number that a comparison of this moment (Unix seconds) can have."""
    return min(max(int(seconds * 1e6) << RANDOM_BITS, 0), MAX_NUMBER)


def to_rows(record: ComparisonRecord, *, full: bool) -> ComparisonRows:
    """Return the rows to write of a comparison; with texts only if `full`, and if its caller does not object."""
    full = full and record.keeps_texts
    # By digest: a prompt sent a thousand times, or to many models, is stored once.
    texts: dict[bytes, str] = {}
    body = clean_text(record.body.decode(errors="replace")) if full else None
    # Long texts go into a table of their own, so that listing comparisons does not read megabytes.
    comparison = _to_comparison_row(record, *place_text(body, texts))
    answers = [row for outcome in record.outcomes for row in _to_answer_rows(record.number, outcome, texts, full=full)]
    metadata = {clean_text(name): clean_text(value) for name, value in record.metadata.items()}
    return ComparisonRows(comparison, answers, metadata, texts)


def _to_comparison_row(record: ComparisonRecord, request: str | None, request_digest: bytes | None) -> ComparisonRow:
    sums, slowest_s = UsageTotals(), 0.0
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    for outcome in record.outcomes:
        slowest_s = max(slowest_s, outcome.timing.total_s)
        if isinstance(outcome.result, Completion):
            usage = plausible_usage(outcome.result.usage)
            sums.add_answer(usage, plausible_usd(outcome.cost))
            cache_write_tokens = add_known(cache_write_tokens, usage.cache_write_tokens)
            reasoning_tokens = add_known(reasoning_tokens, usage.reasoning_tokens)
    return ComparisonRow(
        number=record.number,
        id=record.id,
        created=record.created,
        account_id=clean_name(record.account_id or ""),
        request_id=record.request_id,
        path=record.path,
        stream=record.stream,
        status=record.status,
        answered=sums.calls,
        failed=len(record.outcomes) - sums.calls,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cached_tokens=sums.cached_tokens,
        unknown_usage=sums.unknown_usage,
        cost_usd=sums.cost_usd,
        cost_unknown=sums.cost_unknown,
        cache_write_tokens=cache_write_tokens,
        reasoning_tokens=reasoning_tokens,
        total_ms=to_ms(record.total_s),
        # Calls run at the same time: what exceeds the slowest of them is Fanout's own.
        overhead_ms=to_ms(max(record.total_s - slowest_s, 0.0)),
        # Kept even where texts are not: equal requests can be found without knowing what they were.
        digest=hashlib.sha256(record.body).digest(),
        request=request,
        request_digest=request_digest,
    )


def _to_answer_rows(number: int, outcome: Outcome, texts: dict[bytes, str], *, full: bool) -> Iterator[AnswerRow]:
    """Yield a row for each answer that a call should have given."""
    call, result, timing, cost = outcome.call, outcome.result, outcome.timing, outcome.cost
    target, completion = call.target, result if isinstance(result, Completion) else None
    # Usage and cost of the call stand on its first answer alone, so that sums over answers count them once.
    usage, usd, source = (
        plausible_usage(completion.usage if completion else None),
        plausible_usd(cost),
        cost.source if cost else None,
    )
    upstream_model = _clean_optional((completion.model if completion else None) or target.model)
    model = (clean_name(target.name), clean_name(target.label), target.provider, upstream_model)
    times = (to_ms(timing.queued_s), to_ms(timing.first_token_s), to_ms(timing.call_s), to_ms(timing.total_s), timing.attempts)
    fusion = _dump_fusion(outcome, full=full) if call.fusion else None
    for nth, choice in enumerate(list_choices(outcome)):
        failure = find_failure(outcome, choice)
        content, digest = place_text(_dump_content(choice, failure, nth), texts) if full else (None, None)
        # By position, in the order of the columns: by name a row took twice as long.
        place = (number, call.index + nth, call.entry, call.sample + nth, call.prompt_index)
        end = (get_finish_reason(choice, failure), *_describe_failure(failure))
        counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usd, source)
        yield AnswerRow._make((*place, *model, *end, *counts, *times, content, digest, call.is_member, fusion))
        usage, usd, source = NO_USAGE, None, None


def _dump_fusion(outcome: Outcome, *, full: bool) -> str:
    call, cost = outcome.call, outcome.cost
    assert call.fusion
    found = render_fusion(call.fusion, cost.usd if cost else None, is_answered=isinstance(outcome.result, Completion))
    for member in found["members"]:
        # A failure's message may quote a prompt, as that of an answer may.
        if member["left_out"] is not None and not full:
            member["left_out"] = NOT_KEPT
    return dump(_clean_value(found)).decode()


def _describe_failure(failure: Failure | None) -> tuple[str | None, str | None, int | None]:
    """Return kind, code and status."""
    return (failure.kind, _clean_optional(failure.code), failure.status) if failure else (None, None, None)


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


def _clean_optional(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
