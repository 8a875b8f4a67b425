"""Outcomes → a comparison: answers in the order of the request, usage and cost summed over what is known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fanout.core.schema import Comparison, Completion, CompletionChoice, Failure, Outcome, Totals


def merge(
    outcomes: Sequence[Outcome], *, created: float, total_s: float, metadata: Mapping[str, str] | None = None
) -> Comparison:
    """Every outcome in its place, failures beside successes.

    Args:
        created: Unix seconds.
        total_s: what the whole request took, as its caller saw it.
    """
    slowest_s = max((outcome.timing.total_s for outcome in outcomes), default=0.0)
    return Comparison(
        choices=tuple(_choices(outcomes, int(created))),
        totals=totals(outcomes),
        created=created,
        total_s=total_s,
        overhead_s=max(total_s - slowest_s, 0.0),
        metadata=metadata or {},
    )


def totals(outcomes: Iterable[Outcome]) -> Totals:
    """Sums of what is known; how many answered calls are not known stands beside them."""
    input_tokens = output_tokens = cached_tokens = cost = None
    unknown = cost_unknown = 0
    for outcome in outcomes:
        if isinstance(outcome.result, Failure):
            continue
        usage = outcome.result.usage
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            unknown += 1
        if usage:
            input_tokens = _plus(input_tokens, usage.input_tokens)
            output_tokens = _plus(output_tokens, usage.output_tokens)
            cached_tokens = _plus(cached_tokens, usage.cached_input_tokens)
        if outcome.cost is None:
            cost_unknown += 1
        else:
            cost = (cost or 0.0) + outcome.cost.usd
    return Totals(input_tokens, output_tokens, cached_tokens, unknown, cost, cost_unknown)


def _choices(outcomes: Iterable[Outcome], created: int) -> Iterator[CompletionChoice]:
    for outcome in outcomes:
        places = outcome.call.query.sampling.n or 1
        # No more than were asked for: the next place is the next call's.
        choices = outcome.result.choices[:places] if isinstance(outcome.result, Completion) else (None,) * places
        for number, choice in enumerate(choices):
            yield CompletionChoice(outcome.call.index + number, number, outcome, choice, created)


def _plus(known: int | None, more: int | None) -> int | None:
    return more if known is None else known if more is None else known + more
