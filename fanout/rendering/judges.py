"""Judges and how far they can be trusted, as reports show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.rendering.estimates import EstimateJson, render_statistic
from fanout.rendering.figures import Kind, ReportTable

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.report.corrections import CorrectedFigure
    from fanout.evaluate.report.judges import JudgeReport


class CorrectedFigureJson(TypedDict):
    """A judge's figure beside the one that people's labels make of it."""

    a: Annotated[str, Doc("Label of A.")]
    b: Annotated[str | None, Doc("Label of B; null: the figure is of A alone.")]
    items: Annotated[int, Doc("Items that the judge has judged.")]
    judged: Annotated[float, Doc("By the judge alone: A's mean, its difference from B's, or its win rate against B.")]
    corrected: Annotated[EstimateJson, Doc("The same, corrected by the labels.")]
    labels: Annotated[int, Doc("Items among these that people have labelled.")]
    judge_weight: Annotated[float | None, Doc("Weight of the judge beside the labels, 0 to 1; null: by its error rates.")]
    effective_labels: Annotated[float | None, Doc("Labels that would give as narrow an interval without a judge.")]


class JudgeJson(TypedDict):
    """A judge and what is known of its reliability."""

    name: Annotated[str, Doc("Name of the scorer.")]
    model: Annotated[str, Doc("The model that judges.")]
    task: Annotated[Literal["score", "pair"], Doc("Its task.")]
    questions: Annotated[int, Doc("Questions, repeated ones included.")]
    unread: Annotated[int, Doc("Questions without a readable verdict, after one repetition; they are in no figure.")]
    labels: Annotated[int, Doc("Judged answers or pairs that people have labelled too.")]
    kappa: Annotated[float | None, Doc("Agreement with people beyond chance (Cohen); null: unknown.")]
    both_orders: Annotated[int, Doc("Pairs judged in both orders.")]
    consistency: Annotated[float | None, Doc("Share of these whose verdicts agree.")]
    bias: Annotated[float | None, Doc("Preference for the first place, -1 to 1.")]
    retested: Annotated[int, Doc("Questions that were repeated.")]
    retest: Annotated[float | None, Doc("Share of these with the same verdict.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: unknown.")]
    note: Annotated[str | None, Doc("`judge not validated`, where people have labelled too little.")]
    corrected: Annotated[Sequence[CorrectedFigureJson], Doc("Its figures, corrected by people's labels; empty without labels.")]


def render_judge(judge: JudgeReport) -> JudgeJson:
    """Return a judge's figures."""
    return {
        "name": judge.name,
        "model": judge.model,
        "task": judge.task,
        "questions": judge.questions,
        # Shown beside the figures that lack them: a judge that is often unreadable may have read only the easy ones.
        "unread": judge.unread,
        "labels": judge.labels,
        "kappa": judge.kappa,
        "both_orders": judge.both_orders,
        "consistency": judge.consistency,
        "bias": judge.bias,
        "retested": judge.retested,
        "retest": judge.retest,
        "cost_usd": judge.cost_usd,
        "note": judge.note,
        "corrected": [_render_corrected(figure) for figure in judge.corrected],
    }


def _render_corrected(figure: CorrectedFigure) -> CorrectedFigureJson:
    return {
        "a": figure.a,
        "b": figure.b,
        "items": figure.items,
        "judged": figure.judged,
        "corrected": render_statistic(figure.corrected.estimate),
        "labels": figure.corrected.labels,
        "judge_weight": figure.corrected.weight,
        "effective_labels": figure.corrected.effective_labels,
    }


def table_corrected(judge: JudgeJson) -> ReportTable:
    """Return a judge's figures, corrected by people's labels."""
    columns: dict[str, Kind] = {"A": "text", "B": "text", "by the judge": "score", "corrected": "score"}
    columns |= {"low": "score", "high": "score", "items": "count", "labels": "count", "worth labels": "rate", "note": "text"}
    rows = [
        (
            *(figure["a"], figure["b"], figure["judged"]),
            *(figure["corrected"]["value"], figure["corrected"]["low"], figure["corrected"]["high"]),
            *(figure["items"], figure["labels"], figure["effective_labels"], figure["corrected"]["note"]),
        )
        for figure in judge["corrected"]
    ]
    figure = "means, and differences A − B" if judge["task"] == "score" else "A's win rates"
    return ReportTable("corrected", judge["name"], f"{judge['name']}: {figure}, corrected by people's labels", columns, rows)


def table_judges(judges: Sequence[JudgeJson]) -> ReportTable:
    """Return the reliability of all judges."""
    columns: dict[str, Kind] = {"judge": "text", "model": "text", "questions": "count", "unread": "count", "labels": "count"}
    columns |= {"κ with people": "score", "both orders": "count", "consistent": "score", "bias to the first": "score"}
    columns |= {"repeated": "count", "same verdict": "score", "cost": "usd", "note": "text"}
    rows = [
        (
            *(judge["name"], judge["model"], judge["questions"], judge["unread"], judge["labels"], judge["kappa"]),
            *(judge["both_orders"], judge["consistency"], judge["bias"], judge["retested"], judge["retest"]),
            *(judge["cost_usd"], judge["note"]),
        )
        for judge in judges
    ]
    return ReportTable("judges", None, "Judges: how far they can be trusted", columns, rows)
