"""Choices in their places, and outcomes merged into a comparison with its sums of usage and cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from fanout.core.comparison import Comparison, CompletionChoice
from fanout.core.schema import Choice, Completion, Failure, FinishReason, Outcome
from fanout.core.usage import UsageTotals


def list_choices(outcome: Outcome) -> tuple[Choice | None, ...]:
    """Return a call's choices, one for each of its places; `None` where it failed, or gave fewer than requested."""
    places, result = outcome.call.query.sampling.n or 1, outcome.result
    if isinstance(result, Completion) and len(result.choices) == places:
        return result.choices
    # At most as many as requested, because the next place belongs to the next call.
    choices = result.choices[:places] if isinstance(result, Completion) else ()
    return (*choices, *(None,) * (places - len(choices)))


def find_failure(outcome: Outcome, choice: Choice | None) -> Failure | None:
    """Return the failure in the place of a choice: that of the call, or that the call gave too few choices."""
    if isinstance(outcome.result, Failure):
        return outcome.result
    if choice is not None:
        return None
    call = outcome.call
    # Some providers ignore `n`; a place without an answer would look like a bug of Fanout.
    message = f"`{call.target.provider}` gave fewer answers than the {call.query.sampling.n or 1} requested"
    return Failure("malformed", message, code="missing_choice")


def has_answer(outcomes: Iterable[Outcome]) -> bool:
    """Return whether any call was answered."""
    return any(isinstance(outcome.result, Completion) for outcome in outcomes)


def get_finish_reason(choice: Choice | None, failure: Failure | None) -> FinishReason | Literal["timeout", "error"] | None:
    """Return the reason for an answer's end, as callers see it: the model's own, `timeout` or `error`."""
    if choice is not None:
        return choice.finish_reason
    return "timeout" if failure is not None and failure.kind == "timeout" else "error"


def merge(
    outcomes: Sequence[Outcome], *, created: float, total_s: float, metadata: Mapping[str, str] | None = None
) -> Comparison:
    """Return the comparison of outcomes in the order of their calls; `total_s` is the duration that the caller saw."""
    slowest_s = max((outcome.timing.total_s for outcome in outcomes), default=0.0)
    return Comparison(
        choices=tuple(_list_choices(outcomes, int(created))),
        totals=sum_usage(outcomes),
        created=created,
        total_s=total_s,
        # The clocks are read at different moments, so the difference may be slightly negative.
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
