"""Stopping of jobs, as reports show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast

from typing_extensions import Doc, TypedDict

from fanout.rendering.figures import Kind, ReportTable, format_cell

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.report.stopping import StoppingReport


class PathPointJson(TypedDict):
    items: Annotated[int, Doc("Items that both models have by then.")]
    difference: Annotated[float, Doc("Mean of A - B over these.")]
    low: Annotated[float, Doc("Lower bound of the interval that holds at every look.")]
    high: Annotated[float, Doc("Upper bound.")]
    evidence: Annotated[float, Doc("E-value against no difference.")]


class StoppedPairJson(TypedDict):
    a: Annotated[str, Doc("Label of A.")]
    b: Annotated[str, Doc("Label of B.")]
    state: Annotated[str, Doc("`difference`, `equivalence`, `futility`, `budget`, or `undecided`.")]
    items: Annotated[int, Doc("Items after which that was known.")]
    difference: Annotated[float | None, Doc("Mean of A - B at that moment: too large on average.")]
    evidence: Annotated[float, Doc("Largest e-value against no difference.")]
    low: Annotated[float | None, Doc("Bounds of the difference, which hold at every look, for all pairs together.")]
    high: float | None
    path: Annotated[Sequence[PathPointJson], Doc("After each item; of more than 100, after 100 of them.")]
    fixed_items: Annotated[
        int | None, Doc("Items of a fixed plan for just this difference, or for the margin, power .8; null: none.")
    ]


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
    fixed_cost_usd: Annotated[float | None, Doc("US dollars for these; null: unknown.")]
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
        "fixed_cost_usd": report.fixed_cost_usd,
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "state": pair.state,
                "items": pair.items,
                "difference": pair.difference,
                "evidence": pair.evidence,
                "low": pair.low,
                "high": pair.high,
                # Named tuples have the answer's fields.
                "path": [cast(PathPointJson, point._asdict()) for point in pair.path],
                "fixed_items": pair.fixed_items,
            }
            for pair in report.pairs
        ],
    }


def table_stopping(stopping: StoppingJson) -> ReportTable:
    """Return what became known of each pair, and when."""
    columns: dict[str, Kind] = {"A": "text", "B": "text", "known": "text", "items": "count", "A − B": "score"}
    columns |= {"low": "score", "high": "score", "e-value": "rate", "fixed plan": "count"}
    rows = [
        (
            *(pair["a"], pair["b"], pair["state"], pair["items"]),
            *(pair["difference"], pair["low"], pair["high"], pair["evidence"], pair["fixed_items"]),
        )
        for pair in stopping["pairs"]
    ]
    return ReportTable("stopping", stopping["metric"], f"{stopping['metric']}: when it was known", columns, rows)


def table_path(metric: str, pairs: Sequence[StoppedPairJson]) -> ReportTable:
    """Return what was known of pairs after each item."""
    columns: dict[str, Kind] = {"A": "text", "B": "text", "items": "count", "A − B": "score"}
    columns |= {"low": "score", "high": "score", "e-value": "rate"}
    rows = [
        (pair["a"], pair["b"], *(point["items"], point["difference"], point["low"], point["high"], point["evidence"]))
        for pair in pairs
        for point in pair["path"]
    ]
    return ReportTable("stopping_path", metric, f"{metric}: what was known after each item", columns, rows)


def describe_expense(stopping: StoppingJson) -> str:
    """Return in words what the job took, and what a plan of a fixed size would have taken."""
    taken = _describe_calls(stopping["calls"], stopping["cost_usd"])
    if stopping["fixed_calls"] is None:
        return f"it took {taken}; a fixed plan cannot be named, because no difference was seen"
    fixed = _describe_calls(stopping["fixed_calls"], stopping["fixed_cost_usd"])
    relation = "less" if stopping["calls"] < stopping["fixed_calls"] else "no less"
    return f"it took {taken}, {relation} than a plan of a fixed size for just what was found: {fixed}"


def _describe_calls(calls: int, cost_usd: float | None) -> str:
    return f"{calls:,} calls ({'cost unknown' if cost_usd is None else format_cell(cost_usd, 'usd')})"
