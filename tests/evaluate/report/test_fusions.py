"""Fusions in a report: beside their best member, chosen on other items, and beside that member fused with itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fanout.evaluate.report.fusions import CHOICE_METHOD, report_fusions
from fanout.evaluate.report.matrix import build_matrix
from fanout.evaluate.report.measures import JobMeasures
from fanout.evaluate.report.operations import measure_operations
from fanout.evaluate.report.report import Report, build_report
from fanout.rendering.report import render_report
from fanout.rendering.report_html.document import write_document
from fanout.rendering.report_tables import list_tables, list_verdicts, render_csv, render_markdown
from tests.support.builders.measures import COST, EXACT, build_measures

ITEMS = 60
GOOD = [float(item % 4 > 0) for item in range(ITEMS)]
POOR = [float(item % 2) for item in range(ITEMS)]
BETTER = [float(item % 6 > 0) for item in range(ITEMS)]


def describe(model: str, of: Sequence[int] = (), **sent: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "provider": "lab", "upstream_model": model, "sent": sent}
    return row | ({"fusion": {"of": list(of), "prompt": "1"}} if of else {})


def build(scores: Mapping[str, Sequence[float]], rows: Sequence[Mapping[str, Any]], **given: Any) -> JobMeasures:
    """Return measures of a job whose entries are these models, described by these rows."""
    measures = build_measures(scores, **given)
    for entry, model in enumerate(measures.models):
        model.entry = entry
    fingerprint = {f"{entry}: {name}": dict(row) for entry, (name, row) in enumerate(zip(scores, rows, strict=True))}
    return replace(measures, job=replace(measures.job, fingerprint=fingerprint))


def report_mix(**more: Sequence[float]) -> Report:
    scores = {"mix": BETTER, "good": GOOD, "poor": POOR}
    return build_report(build(scores, [describe("maker", (1, 2)), describe("good"), describe("poor")]))


def test_a_fusion_stands_beside_its_best_member_and_says_how_to_run_the_other_comparison() -> None:
    (found,) = report_mix().fusions

    assert (found.best_member, found.members) == ("good", ["good", "poor"])
    assert found.against_best.difference.value == pytest.approx(np.mean(BETTER) - np.mean(GOOD))
    assert found.chosen == {"good": ITEMS, "poor": 0}
    assert (found.self_fusion, found.against_self, found.missing) == (None, None, "fusion(good*2 by maker)")
    assert found.sentence.startswith("exact: mix is ahead of its best member (good) by 0.08333 [")
    assert ", at 3 times its cost; not compared with good fused with itself" in found.sentence
    assert found.sentence.endswith("add the model `fusion(good*2 by maker)`")


def test_a_fusion_of_the_best_member_with_itself_is_compared_whatever_its_seeds() -> None:
    scores = {"mix": BETTER, "good": GOOD, "poor": POOR, "itself": GOOD, "good (5)": GOOD}
    rows = [
        *(describe("maker", (1, 2)), describe("good", seed=7), describe("poor")),
        *(describe("maker", (1, 4)), describe("good", seed=8) | {"is_member": True}),
    ]
    report = build_report(build(scores, rows))
    mix, itself = report.fusions

    assert (mix.self_fusion, mix.missing) == ("itself", None)
    assert mix.against_self
    assert mix.against_self.difference.value == pytest.approx(np.mean(BETTER) - np.mean(GOOD))
    assert "; it is ahead of good fused with itself by 0.08333 [" in mix.sentence
    assert itself.sentence.endswith("it is good fused with itself")
    assert mix.self_cost_per_1000 == mix.cost_per_1000
    assert len(report.models) == 5
    assert "good (5)" not in [model.model for model in report.metrics[0].models]  # a second draw is no other model
    assert any(note.startswith("good (5): one more call of its model") for note in report.notes)


@pytest.mark.parametrize(
    "other",
    [
        describe("another", (1, 4)),
        describe("maker", (1, 4, 1)),
        describe("maker", (1, 2)),
        {**describe("maker", (1, 4)), "fusion": {"of": [1, 4], "prompt": "sha256:0"}},
        describe("maker", (1, 4), temperature=1),
    ],
)
def test_another_model_number_member_prompt_or_parameter_is_no_fusion_of_it_with_itself(other: dict[str, Any]) -> None:
    scores = {"mix": BETTER, "good": GOOD, "poor": POOR, "other": GOOD, "good (5)": GOOD}
    rows = [describe("maker", (1, 2)), describe("good"), describe("poor"), other, describe("good")]

    assert build_report(build(scores, rows)).fusions[0].self_fusion is None


def test_the_best_of_equal_members_is_chosen_on_other_items_so_that_luck_gives_no_lead() -> None:
    """On the items on which it is chosen, the luckiest of ten coins would be ahead of an eleventh by .09."""
    naive, fitted = [], []
    for seed in range(25):
        draws = np.random.default_rng(seed).integers(0, 2, (11, ITEMS)).astype(float)
        scores = {f"m{number}": row.tolist() for number, row in enumerate(draws)}
        rows = [describe("maker", range(1, 11)), *(describe(f"m{number}") for number in range(1, 11))]
        measures = build(scores, rows)
        operations = {one.name: measure_operations(one) for one in measures.models}
        matrix = build_matrix(measures, EXACT, "score_zero")
        (found,) = report_fusions(measures, matrix, EXACT, operations, None)
        fitted.append(found.against_best.difference.value or 0.0)
        naive.append(draws[0].mean() - draws[1:].mean(axis=1).max())

    assert np.mean(naive) < -0.07
    assert abs(np.mean(fitted)) < 0.03


def test_items_that_hang_together_choose_for_others_together() -> None:
    clusters = {item: f"topic {item // 4}" for item in range(ITEMS)}
    measures = build(
        {"mix": BETTER, "good": GOOD, "poor": POOR},
        [describe("maker", (1, 2)), describe("good"), describe("poor")],
        clusters=clusters,
    )
    (found,) = build_report(measures).fusions

    assert "cluster" in found.against_best.difference.method


def test_few_items_give_no_verdict_and_less_may_be_better() -> None:
    rows = [describe("maker", (1, 2)), describe("good"), describe("poor")]
    (few,) = build_report(build({"mix": BETTER[:9], "good": GOOD[:9], "poor": POOR[:9]}, rows)).fusions
    assert "cannot be compared with its best member (good): 9 items are too few" in few.sentence

    (cheap,) = build_report(build({"mix": BETTER, "good": GOOD, "poor": POOR}, rows, scorer=COST)).fusions
    assert cheap.best_member == "poor"
    assert "mix is behind its best member (poor) by" in cheap.sentence


def test_a_report_without_fusions_has_nothing_of_them() -> None:
    report = render_report(build_report(build_measures({"a": GOOD, "b": POOR}, scorer=EXACT)))

    assert report["fusions"] == []
    assert CHOICE_METHOD not in report["methods"]
    assert "fusions" not in [table.name for table in list_tables(report)]


def test_every_form_of_the_report_has_the_comparison() -> None:
    report = render_report(report_mix())
    (fusion,) = report["fusions"]

    assert fusion["missing"] == "fusion(good*2 by maker)"
    assert fusion["sentence"] in list_verdicts(report)
    assert CHOICE_METHOD in report["methods"]
    (table,) = [table for table in list_tables(report) if table.name == "fusions"]
    assert [row[1] for row in table.rows] == ["best member (good)", "not run: fusion(good*2 by maker)"]
    assert "not compared with good fused with itself" in render_markdown(report)
    assert "fusions,,mix,best member (good),A − B,0.0833" in render_csv(report)
    pieces: list[bytes] = []
    write_document(pieces.append, report, [])
    assert b'id="fusions"' in b"".join(pieces)
    assert b"cross-fitting" in b"".join(pieces)
