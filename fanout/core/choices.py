"""The places of a call's answers, each with a choice or the failure that stands for it."""

from __future__ import annotations

from typing import Literal

from fanout.core.schema import Choice, Completion, Failure, FinishReason, Outcome


def list_choices(outcome: Outcome) -> tuple[Choice | None, ...]:
    """Return a call's choices, one for each of its places; `None` where it failed, or gave fewer than requested."""
    places, result = outcome.call.query.sampling.n or 1, outcome.result
    # No more than requested: the next place is the next call's.
    choices = result.choices[:places] if isinstance(result, Completion) else ()
    return (*choices, *(None,) * (places - len(choices)))


def find_failure(outcome: Outcome, choice: Choice | None) -> Failure | None:
    """Return the failure in the place of a choice: the call's own, or that it gave too few choices."""
    if isinstance(outcome.result, Failure):
        return outcome.result
    if choice is not None:
        return None
    call = outcome.call
    message = f"`{call.target.provider}` gave fewer answers than the {call.query.sampling.n or 1} requested"
    return Failure("malformed", message, code="missing_choice")


def get_finish_reason(choice: Choice | None, failure: Failure | None) -> FinishReason | Literal["timeout", "error"] | None:
    """Return the end of an answer as callers see it: the model's reason, `timeout` or `error`."""
    if choice is not None:
        return choice.finish_reason
    return "timeout" if failure is not None and failure.kind == "timeout" else "error"
