"""What is kept of a comparison: its rows, made of how its calls ended. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.choices import find_failure, get_finish_reason, list_choices
from fanout.core.schema import Choice, Completion, Failure, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import UsageTotals, plausible_usage, plausible_usd
from fanout.store.engine.text_columns import clean_name, clean_text

MAX_INLINE_CHARS = 1024
"""Characters. A longer text stands once, however often it is asked or answered."""
DAY_S = 86_400
RANDOM_BITS = 10
"""Of a number's end. Above them stand microseconds: so numbers last until the year 2255."""
MAX_NUMBER = 2**63 - 1


class ComparisonRow(NamedTuple):
    """As the columns of the table."""

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
    total_ms: int
    overhead_ms: int
    digest: bytes
    request: str | None
    request_digest: bytes | None


class AnswerRow(NamedTuple):
    """As the columns of the table."""

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
    said: str | None
    said_digest: bytes | None


@dataclass(slots=True)
class ComparisonRecord:
    """A comparison as it ended. Making one is all that its request waits for."""

    number: int
    id: str
    created: float
    """Unix seconds."""
    account_id: str | None
    request_id: str
    path: str
    stream: bool
    status: int
    """HTTP's; 499 where the client left."""
    total_s: float
    metadata: Mapping[str, str]
    body: bytes
    """As it came."""
    outcomes: Sequence[Outcome]

    @property
    def size_bytes(self) -> int:
        """About how much memory it holds."""
        texts = (
            len(choice.message.text)
            for outcome in self.outcomes
            if isinstance(outcome.result, Completion)
            for choice in outcome.result.choices
        )
        return len(self.body) + sum(texts) + 1024 * len(self.outcomes)


class ComparisonRows(NamedTuple):
    """What is written of a comparison."""

    comparison: ComparisonRow
    answers: Sequence[AnswerRow]
    metadata: Mapping[str, str]
    texts: Mapping[bytes, str]
    """By digest."""

    @property
    def day(self) -> int:
        return int(self.comparison.created) // DAY_S


@dataclass(slots=True)
class StoredComparison:
    """A comparison that was asked for."""

    comparison: ComparisonRow
    entries: Sequence[tuple[int, str, str]] = ()
    """Number, model and label of each."""
    metadata: Mapping[str, str] | None = None
    answers: Sequence[AnswerRow] = ()
    """Only where the whole was asked for; what was said of them, and the request, is then where it belongs."""


def first_number_at(seconds: float) -> int:
    """The first number of a moment."""
    return min(max(int(seconds * 1e6) << RANDOM_BITS, 0), MAX_NUMBER)


def to_rows(record: ComparisonRecord, *, full: bool) -> ComparisonRows:
    """What is written of a comparison; texts only where `full`."""
    texts: dict[bytes, str] = {}
    sums, answered = UsageTotals(), 0
    for outcome in record.outcomes:
        if isinstance(outcome.result, Completion):
            sums.add_answer(plausible_usage(outcome.result.usage), plausible_usd(outcome.cost))
            answered += 1
    slowest_s = max((outcome.timing.total_s for outcome in record.outcomes), default=0.0)
    request, request_digest = _placed(clean_text(record.body.decode(errors="replace")), texts) if full else (None, None)
    comparison = ComparisonRow(
        number=record.number,
        id=record.id,
        created=record.created,
        account_id=clean_name(record.account_id or ""),
        request_id=record.request_id,
        path=record.path,
        stream=record.stream,
        status=record.status,
        answered=answered,
        failed=len(record.outcomes) - answered,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cached_tokens=sums.cached_tokens,
        unknown_usage=sums.unknown_usage,
        cost_usd=sums.cost_usd,
        cost_unknown=sums.cost_unknown,
        total_ms=to_ms(record.total_s),
        overhead_ms=to_ms(max(record.total_s - slowest_s, 0.0)),
        digest=hashlib.sha256(record.body).digest(),
        request=request,
        request_digest=request_digest,
    )
    found = [row for outcome in record.outcomes for row in _answers(record.number, outcome, texts if full else None)]
    metadata = {clean_text(name): clean_text(value) for name, value in record.metadata.items()}
    return ComparisonRows(comparison, found, metadata, texts)


def _answers(number: int, outcome: Outcome, texts: dict[bytes, str] | None) -> Iterator[AnswerRow]:
    """A row for each of a call's places. Where one call gave several answers, what it took stands on the first."""
    call, result, timing = outcome.call, outcome.result, outcome.timing
    for nth, choice in enumerate(list_choices(outcome)):
        failure = find_failure(outcome, choice)
        said = None if texts is None else _said(choice, failure, nth)
        text, digest = (None, None) if said is None or texts is None else _placed(said, texts)
        usage = plausible_usage(result.usage if isinstance(result, Completion) and nth == 0 else None)
        yield AnswerRow(
            comparison=number,
            place=call.index + nth,
            entry=call.entry,
            sample=call.sample + nth,
            prompt=call.prompt_index,
            model=clean_name(call.target.name),
            label=clean_name(call.target.label),
            provider=call.target.provider,
            upstream_model=_stored((result.model if isinstance(result, Completion) else None) or call.target.model),
            finish_reason=get_finish_reason(choice, failure),
            kind=failure.kind if failure else None,
            code=_stored(failure.code if failure else None),
            upstream_status=failure.status if failure else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_input_tokens,
            cost_usd=plausible_usd(outcome.cost) if nth == 0 else None,
            cost_source=outcome.cost.source if outcome.cost and nth == 0 else None,
            queued_ms=to_ms(timing.queued_s),
            ttft_ms=to_ms(timing.first_token_s),
            call_ms=to_ms(timing.call_s),
            total_ms=to_ms(timing.total_s),
            attempts=timing.attempts,
            said=text,
            said_digest=digest,
        )


def _said(choice: Choice | None, failure: Failure | None, nth: int) -> str:
    """An answer's text and what stands beside it, or a failure's message and what had come until then, as JSON."""
    if choice:
        message = choice.message
        beside = {"reasoning": message.reasoning, "refusal": message.refusal, "tool_calls": message.tool_calls}
        said = {"text": message.text, **{name: value for name, value in beside.items() if value}}
    else:
        said = {"text": (failure.partial or "") if failure and nth == 0 else "", "message": failure.message if failure else ""}
    try:
        return to_json(said, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # half a character
        return to_json(_whole(said), inf_nan_mode="null", fallback=str).decode()


def _whole(value: Any) -> Any:
    """A value without halves of characters."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(name)): _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value


def _placed(text: str, texts: dict[bytes, str]) -> tuple[str | None, bytes | None]:
    """A text itself, or where it is long, its digest."""
    if len(text) <= MAX_INLINE_CHARS:
        return text, None
    digest = hashlib.sha256(text.encode()).digest()
    texts[digest] = text
    return None, digest


def _stored(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
