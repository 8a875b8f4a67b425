"""Records of comparisons: how one ended, and the types of the rows that are kept of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from fanout.core.answer_size import measure_answer
from fanout.core.schema import Completion, Outcome

DAY_S = 86_400
RANDOM_BITS = 10
"""The low bits of a number. The bits above them count microseconds, so numbers last until the year 2255."""
MAX_NUMBER = 2**63 - 1


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
    """A comparison that has ended, with the request's body as it came."""

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

    def without_numbers(self) -> Self:
        """Return it as it is kept for a while: without vectors and tokens, which may be many megabytes."""
        return replace(self, outcomes=[_drop_numbers(outcome) for outcome in self.outcomes])

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
