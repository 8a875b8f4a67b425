"""Answers as scorers see them. Pure."""

from __future__ import annotations

from fanout.core.json_text import JsonObject
from fanout.evaluate.scorers.scorer import ScorerInput, to_text
from fanout.jobs.stored_outcome import StoredOutcome


def to_scorer_input(body: JsonObject, outcome: StoredOutcome) -> ScorerInput:
    """Return what scorers may look at: the first choice of the answer, its item, and what the call took.

    Args:
        body: the item.
        outcome: with a completion.
    """
    completion = outcome.completion
    assert completion, "only answers are scored"
    choice = completion.choices[0] if completion.choices else None
    reference = body.get("reference")
    return ScorerInput(
        text=choice.message.text if choice else "",
        reference=None if reference is None else to_text(reference),
        columns=body.get("values") or {},
        finish_reason=choice.finish_reason if choice else None,
        is_refusal=bool(choice and choice.message.refusal),
        output_tokens=completion.usage.output_tokens if completion.usage else None,
        ttft_s=outcome.timing.first_token_s,
        call_s=outcome.timing.call_s,
        cost_usd=outcome.cost.usd if outcome.cost else None,
    )
