"""Stopping of jobs, as reports show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc, TypedDict

from fanout.rendering.figures import Kind, ReportTable

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.report.stopping import StoppingReport


class StoppedPairJson(TypedDict):
    a: Annotated[str, Doc("Label of A.")]
    b: Annotated[str, Doc("Label of B.")]
    state: Annotated[str, Doc("`difference`, `equivalence`, `futility`, `budget`, or `undecided`.")]
    items: Annotated[int, Doc("Items after which that was known.")]
    difference: Annotated[float | None, Doc("Mean of A - B at that moment: too large on average.")]
    evidence: Annotated[float, Doc("Largest e-value against no difference.")]
    fixed_items: Annotated[int | None, Doc("Items of a fixed plan for just this difference, power .8; null: none.")]


class StoppingJson(TypedDict):
    """Course of a job that was to stop as soon as it was decided."""

    metric: Annotated[str, Doc("Name of the scorer that decides.")]
    margin: Annotated[float | None, Doc("Differences below it count as none.")]
    alpha: Annotated[float, Doc("Chance of any false alarm in the job.")]
    seed: Annotated[int, Doc("Of the order of the items.")]
    sentence: Annotated[str | None, Doc("What was decided, and when; null: not yet.")]
    items: Annotated[int, Doc("Items, in that order, that were looked at.")]
    calls: Annotated[int, Doc("Calls that it took, those in flight at the end included.")]
    cost_usd: Annotated[float | None, Doc("US dollars that it took; null: unknown.")]
    fixed_calls: Annotated[int | None, Doc("Calls of a fixed plan that would have separated the hardest pair; null: unknown.")]
    pairs: Annotated[Sequence[StoppedPairJson], Doc("Every two models.")]


def render_stopping(report: StoppingReport) -> StoppingJson:
    """Return the course of a job."""
    return {
        "metric": report.plan.metric,
        "margin": report.plan.margin,
        "alpha": report.plan.alpha,
        "seed": report.plan.seed,
        "sentence": report.sentence,
        "items": report.items,
        "calls": report.calls,
        "cost_usd": report.cost_usd,
        "fixed_calls": report.fixed_calls,
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "state": pair.state,
                "items": pair.items,
                "difference": pair.difference,
                "evidence": pair.evidence,
                "fixed_items": pair.fixed_items,
            }
            for pair in report.pairs
        ],
    }


def table_stopping(stopping: StoppingJson) -> ReportTable:
    """Return what became known of each pair, and when."""
    columns: dict[str, Kind] = {"A": "text", "B": "text", "known": "text", "items": "count", "A − B": "score"}
    columns |= {"e-value": "rate", "fixed plan": "count"}
    rows = [
        (pair["a"], pair["b"], pair["state"], pair["items"], pair["difference"], pair["evidence"], pair["fixed_items"])
        for pair in stopping["pairs"]
    ]
    fixed = f", a fixed plan {stopping['fixed_calls']:,}" if stopping["fixed_calls"] is not None else ""
    title = f"{stopping['metric']}: when it was known ({stopping['calls']:,} calls{fixed})"
    return ReportTable("stopping", stopping["metric"], title, columns, rows)
