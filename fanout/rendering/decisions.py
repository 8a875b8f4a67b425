"""Gates and plans: what a job's scores decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.rendering.estimates import EstimateJson, render_statistic

# Not imported when the program runs: they load numpy, and the server describes these without making any.
if TYPE_CHECKING:
    from fanout.evaluate.decisions.gate import GateDecision
    from fanout.evaluate.decisions.plan import PairPlan, Plan


class GateJson(TypedDict):
    """Verdict on a candidate."""

    object: Literal["job.gate"]
    job_id: Annotated[str, Doc("Id of the job.")]
    model: Annotated[str, Doc("The candidate.")]
    baseline: Annotated[str, Doc("What it is compared with.")]
    baseline_job_id: Annotated[str | None, Doc("Id of the earlier job that has it; null: the same job.")]
    metric: Annotated[str, Doc("Name of the scorer.")]
    margin: Annotated[float, Doc("How much worse it may be, in the unit of the score.")]
    verdict: Annotated[
        Literal["pass", "fail", "inconclusive"],
        Doc("`pass`: at most the margin worse; `fail`: worse by more; `inconclusive`: the items do not tell."),
    ]
    sentence: Annotated[str, Doc("The verdict and its reason.")]
    difference: Annotated[EstimateJson, Doc("Candidate − baseline; positive where the candidate is better, also of costs.")]
    dropped: Annotated[int, Doc("Items that are in no figure.")]
    notes: Annotated[Sequence[str], Doc("What limits the verdict; the sentence has it, too.")]


class PairPlanJson(TypedDict):
    a: Annotated[str, Doc("Label of a model.")]
    b: Annotated[str, Doc("Label of another.")]
    items: Annotated[int | None, Doc("Items that show the difference; null: the pilot does not tell, see `note`.")]
    variance: Annotated[float | None, Doc("Variance of an item's difference, with the planned repeats.")]
    smallest_p: Annotated[float | None, Doc("Smallest p-value that so many items are likely to allow.")]
    detectable_difference: Annotated[float | None, Doc("Difference that as many items as the pilot's show.")]
    cost_per_item_usd: Annotated[float | None, Doc("US dollars for an item, both models and all repeats; null: unknown.")]
    cost_usd: Annotated[float | None, Doc("US dollars for the needed items.")]
    note: Annotated[str | None, Doc("What limits the plan.")]


class PlanJson(TypedDict):
    """Items that a comparison needs."""

    object: Literal["evaluation.plan"]
    job_id: Annotated[str | None, Doc("Id of the pilot; null: from stated rates.")]
    metric: Annotated[str | None, Doc("Name of the scorer.")]
    pilot_items: Annotated[int | None, Doc("Items of the pilot.")]
    difference: Annotated[float, Doc("The difference to be seen.")]
    alpha: Annotated[float, Doc("Chance to see a difference where there is none.")]
    power: Annotated[float, Doc("Chance to see it where it is.")]
    repeats: Annotated[int, Doc("Samples of each item and model.")]
    pairs: Annotated[Sequence[PairPlanJson], Doc("Every two models.")]


def render_gate(job_id: str, gate: GateDecision) -> GateJson:
    """Return the verdict on a candidate."""
    return {
        "object": "job.gate",
        "job_id": job_id,
        "model": gate.options.model,
        "baseline": gate.options.baseline,
        "baseline_job_id": gate.options.baseline_job,
        "metric": gate.metric,
        # Beside the verdict, which means nothing without it.
        "margin": gate.options.margin,
        "verdict": gate.verdict.state,
        "sentence": gate.verdict.sentence,
        "difference": render_statistic(gate.test.difference),
        "dropped": gate.dropped,
        "notes": list(gate.notes),
    }


def render_plan(plan: Plan, job_id: str | None = None) -> PlanJson:
    """Return a plan."""
    options = plan.options
    return {
        "object": "evaluation.plan",
        "job_id": job_id,
        "metric": plan.metric,
        "pilot_items": plan.pilot_items,
        "difference": options.difference,
        "alpha": options.alpha,
        "power": options.power,
        "repeats": options.repeats,
        "pairs": [_render_pair(pair) for pair in plan.pairs],
    }


def _render_pair(pair: PairPlan) -> PairPlanJson:
    return {
        "a": pair.a,
        "b": pair.b,
        "items": pair.items,
        "variance": pair.variance,
        "smallest_p": pair.smallest_p,
        "detectable_difference": pair.detectable,
        "cost_per_item_usd": pair.cost_per_item_usd,
        "cost_usd": pair.cost_usd,
        "note": pair.note,
    }
