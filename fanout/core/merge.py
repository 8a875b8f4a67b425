"""Outcomes merged into a comparison: answers in the order of the request, usage and cost summed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fanout.core.choices import list_choices
from fanout.core.schema import Comparison, CompletionChoice, Failure, Outcome
from fanout.core.usage import UsageTotals


def merge(
    outcomes: Sequence[Outcome], *, created: float, total_s: float, metadata: Mapping[str, str] | None = None
) -> Comparison:
    """Return the comparison of some outcomes: every one in its place, failures beside successes.

    Args:
        outcomes: the outcomes in the order of their calls.
        created: Unix seconds.
        total_s: duration of the whole request as its caller saw it.
        metadata: the caller's own.
    """
    slowest_s = max((outcome.timing.total_s for outcome in outcomes), default=0.0)
    return Comparison(
        choices=tuple(_list_choices(outcomes, int(created))),
        totals=sum_usage(outcomes),
        created=created,
        total_s=total_s,
        # The clocks are read apart, so the difference may fall below zero.
        overhead_s=max(total_s - slowest_s, 0.0),
        metadata=metadata or {},
    )


def sum_usage(outcomes: Iterable[Outcome]) -> UsageTotals:
    """Return the sums of known figures, and the number of answered calls that are missing from them."""
    totals = UsageTotals()
    for outcome in outcomes:
        if isinstance(outcome.result, Failure):
            totals.add_failure()
        else:
            totals.add_answer(outcome.result.usage, outcome.cost.usd if outcome.cost else None)
    return totals


def _list_choices(outcomes: Iterable[Outcome], created: int) -> Iterator[CompletionChoice]:
    for outcome in outcomes:
        for number, choice in enumerate(list_choices(outcome)):
            if choice is not None or isinstance(outcome.result, Failure):
                yield CompletionChoice(outcome.call.index + number, number, outcome, choice, created)
