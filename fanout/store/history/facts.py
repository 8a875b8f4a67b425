"""Facts: what is known of a comparison without texts, in the shortest form that its rows can be made of later. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fanout.core.fusion import render_fusion
from fanout.core.json_text import dump
from fanout.core.merge import find_failure, get_finish_reason, list_choices
from fanout.core.schema import Choice, Completion, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import NO_USAGE
from fanout.store.engine.text_columns import clean_texts
from fanout.store.history.records import ComparisonRecord

NOT_KEPT = "texts are not kept"

EndFacts = tuple[str | None, str | None, str | None, int | None]
"""The end of an answer: its finish reason; of a failure also kind, code and upstream status."""


class CallFacts(NamedTuple):
    """A call and its answers."""

    place: int
    entry: int
    sample: int
    prompt: int | None
    model: str
    label: str
    provider: str | None
    upstream_model: str | None
    is_answered: bool
    ends: str | Sequence[EndFacts] | None
    """Of a call that gave the one answer that was requested its finish reason, else the end of each answer."""
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    cost_source: str | None
    queued_ms: int
    ttft_ms: int | None
    call_ms: int | None
    total_ms: int
    attempts: int
    is_member: bool
    fusion: str | None


class ComparisonFacts(NamedTuple):
    """A comparison and its calls."""

    number: int
    id: str
    created: float
    account_id: str | None
    request_id: str
    path: str
    stream: bool
    status: int
    total_ms: int
    overhead_ms: int
    digest: str
    """Hexadecimal SHA-256 of the request."""
    metadata: Mapping[str, str]
    calls: Sequence[CallFacts]


def list_facts(record: ComparisonRecord, *, full: bool = False) -> tuple[Any, ...]:
    """Return the fields of a `ComparisonFacts`, as plain tuples; `full`: messages of failed members may be kept.

    They are to be encoded at once: of a named tuple the encoder first asks what it is, which takes three times as long.
    """
    # One expression for each call, nothing looked up twice, and nothing cleaned or summed that can be at leisure: this runs for
    # every answer.
    calls: list[tuple[Any, ...]] = []
    slowest_s = 0.0
    ends: str | Sequence[EndFacts] | None
    for outcome in record.outcomes:
        call = outcome.call
        result = outcome.result
        timing = outcome.timing
        target = call.target
        if isinstance(result, Completion):
            answer, usage, upstream_model = result, result.usage or NO_USAGE, result.model or target.model
        else:
            answer, usage, upstream_model = None, NO_USAGE, target.model
        if answer is not None and len(answer.choices) == 1 == (call.query.sampling.n or 1):
            ends = answer.choices[0].finish_reason
        else:
            ends = [_describe_end(outcome, choice) for choice in list_choices(outcome)]
        cost = outcome.cost
        queued_s = timing.queued_s
        first_token_s = timing.first_token_s
        call_s = timing.call_s
        total_s = timing.total_s
        if total_s > slowest_s:
            slowest_s = total_s
        calls.append(
            (
                call.index,
                call.entry,
                call.sample,
                call.prompt_index,
                target.name,
                target.label,
                target.provider,
                upstream_model,
                answer is not None,
                ends,
                usage.input_tokens,
                usage.output_tokens,
                usage.cached_input_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
                None if cost is None else cost.usd,
                None if cost is None else cost.source,
                # As `to_ms` does.
                0 if queued_s < 0.0005 else round(queued_s * 1e3),
                None if first_token_s is None else round(first_token_s * 1e3),
                None if call_s is None else round(call_s * 1e3),
                round(total_s * 1e3),
                timing.attempts,
                call.is_member,
                None if call.fusion is None else _dump_fusion(outcome, full=full),
            )
        )
    return (
        record.number,
        record.id,
        record.created,
        record.account_id,
        record.request_id,
        record.path,
        record.stream,
        record.status,
        to_ms(record.total_s),
        # Calls run at the same time: what exceeds the slowest of them is Fanout's own.
        to_ms(max(record.total_s - slowest_s, 0.0)),
        # Kept even where texts are not: equal requests can be found without knowing what they were.
        hashlib.sha256(record.body).hexdigest(),
        record.metadata,
        calls,
    )


def _describe_end(outcome: Outcome, choice: Choice | None) -> EndFacts:
    failure = find_failure(outcome, choice)
    finish_reason = get_finish_reason(choice, failure)
    return (finish_reason, failure.kind, failure.code, failure.status) if failure else (finish_reason, None, None, None)


def _dump_fusion(outcome: Outcome, *, full: bool) -> str:
    call, cost = outcome.call, outcome.cost
    assert call.fusion
    found = render_fusion(call.fusion, cost.usd if cost else None, is_answered=isinstance(outcome.result, Completion))
    for member in found["members"]:
        # A failure's message may quote a prompt, as that of an answer may.
        if member["left_out"] is not None and not full:
            member["left_out"] = NOT_KEPT
    return dump(clean_texts(found)).decode()
