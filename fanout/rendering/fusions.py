"""Fusions in reports: each beside its best member, and beside that member fused with itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc, TypedDict

from fanout.rendering.estimates import EstimateJson, render_statistic
from fanout.rendering.figures import Cell, Kind, ReportTable

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.report.fusions import FusionReport


class FusionComparisonJson(TypedDict):
    """A fusion on one metric. The better of several members is chosen on other items than it is compared on."""

    metric: Annotated[str, Doc("Name of the scorer.")]
    fusion: Annotated[str, Doc("Label of the fusion.")]
    members: Annotated[Sequence[str], Doc("Labels of its members.")]
    sentence: Annotated[str, Doc("Comparison in words.")]
    best_member: Annotated[str, Doc("Member with the best mean over all items.")]
    chosen: Annotated[Mapping[str, int], Doc("Items on which each member stands for the best, chosen on the others.")]
    against_best: Annotated[EstimateJson, Doc("Mean of fusion − best member.")]
    against_best_p: Annotated[float | None, Doc('Of "no difference", two-sided.')]
    self_fusion: Annotated[str | None, Doc("Label of the best member fused with itself; null: the job has none.")]
    against_self: Annotated[EstimateJson | None, Doc("Mean of fusion − self-fusion; null: it cannot be compared.")]
    against_self_p: Annotated[float | None, Doc('Of "no difference", two-sided.')]
    missing: Annotated[str | None, Doc("Model to add to a job for a missing self-fusion; null: it is there.")]
    cost_per_1000_items_usd: Annotated[float | None, Doc("US dollars, members and fusing call together; null: unknown.")]
    best_cost_per_1000_items_usd: Annotated[float | None, Doc("US dollars of the best member.")]
    self_cost_per_1000_items_usd: Annotated[float | None, Doc("US dollars of the self-fusion, likewise.")]


def render_fusion_report(report: FusionReport) -> FusionComparisonJson:
    """Return the comparison of a fusion on one metric."""
    best, own = report.against_best, report.against_self
    return {
        "metric": report.metric,
        "fusion": report.fusion,
        "members": list(report.members),
        "sentence": report.sentence,
        "best_member": report.best_member,
        "chosen": dict(report.chosen),
        "against_best": render_statistic(best.difference),
        "against_best_p": best.p_value,
        "self_fusion": report.self_fusion,
        "against_self": render_statistic(own.difference) if own else None,
        "against_self_p": own.p_value if own else None,
        "missing": report.missing,
        "cost_per_1000_items_usd": report.cost_per_1000,
        "best_cost_per_1000_items_usd": report.best_cost_per_1000,
        "self_cost_per_1000_items_usd": report.self_cost_per_1000,
    }


def table_fusions(fusions: Sequence[FusionComparisonJson]) -> ReportTable:
    """Return each fusion beside its best member, and beside that member fused with itself."""
    columns: dict[str, Kind] = {
        "A": "text",
        "B": "text",
        "metric": "text",
        "A − B": "score",
        "low": "score",
        "high": "score",
        "p": "p",
        "items": "count",
        "A per 1,000 items": "usd",
        "B per 1,000 items": "usd",
    }
    rows: list[tuple[Cell, ...]] = []
    for one in fusions:
        best, itself = one["against_best"], one["against_self"]
        own, other = one["cost_per_1000_items_usd"], one["best_cost_per_1000_items_usd"]
        figures = (best["value"], best["low"], best["high"], one["against_best_p"], best["n"])
        rows.append((one["fusion"], f"best member ({one['best_member']})", one["metric"], *figures, own, other))
        if itself:
            figures = (itself["value"], itself["low"], itself["high"], one["against_self_p"], itself["n"])
            rows.append((one["fusion"], one["self_fusion"], one["metric"], *figures, own, one["self_cost_per_1000_items_usd"]))
        elif one["missing"]:
            rows.append((one["fusion"], f"not run: {one['missing']}", one["metric"], None, None, None, None, 0, own, None))
    return ReportTable(
        "fusions", None, "Fusions beside their best member, and beside that member fused with itself", columns, rows
    )
