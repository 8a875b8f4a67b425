"""Reports: the figures of statistics.md through the whole computation, and what is said where figures cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fanout.evaluate.report.matrix import build_matrix
from fanout.evaluate.report.measures import JudgeMeasures
from fanout.evaluate.report.metrics import MetricReport, compare_models
from fanout.evaluate.report.report import Report, build_report
from fanout.rendering.report import ReportJson, render_report
from fanout.rendering.report_tables import table_pairs
from tests.support.builders.measures import ABSENT, COST, EXACT, FAILED, build_measures
from tests.support.shapes import check_shape


def build(scores: Any, **more: Any) -> Report:
    return build_report(build_measures(scores, **more))


def compare(scores: Any, **more: Any) -> MetricReport:
    """Compare on the one metric alone: latencies take longer."""
    measures = build_measures(scores, **more)
    (scorer,), clusters = measures.scorers, measures.clusters
    matrix = build_matrix(measures, scorer, measures.job.spec.failed)
    return compare_models(matrix, scorer, [clusters[item] for item in matrix.items.tolist()] if clusters else None)


def draw_binary(better: int, worse: int, n: int) -> tuple[list[float], list[float]]:
    """Return 0/1 scores of two models: A alone is right on `better` items, B alone on `worse`, both on the rest."""
    both = n - better - worse
    return [1.0] * better + [0.0] * worse + [1.0] * both, [0.0] * better + [1.0] * worse + [1.0] * both


def test_a_pair_of_0_1_scores_has_the_published_interval_and_p_value() -> None:
    a, b = draw_binary(19, 14, 100)
    metric = compare({"b": b, "a": a})
    (pair,) = metric.pairs

    assert (pair.a, pair.b, pair.wins, pair.ties, pair.losses) == ("a", "b", 19, 67, 14)
    assert pair.test.difference.interval
    assert (pair.test.difference.interval.low, pair.test.difference.interval.high) == pytest.approx(
        (-0.0642611, 0.1623003), abs=1e-6
    )
    assert pair.test.p_value == pytest.approx(0.4868502, abs=1e-6)
    assert pair.adjusted_p == pair.test.p_value, "one pair needs no adjustment"
    assert [model.verdict for model in metric.models] == ["tied with 1 other as best"] * 2
    assert metric.verdict == "exact: all models are tied; a is ahead of b by 0.05 [-0.06426, 0.1623] (p = 0.49, 100 items)"


def test_with_three_models_intervals_hold_together_and_p_values_are_adjusted() -> None:
    a, b = draw_binary(19, 14, 100)
    metric = compare({"a": a, "b": b, "c": [0.0] * 100})
    pair = metric.pairs[0]

    assert (pair.a, pair.b) == ("a", "b")
    assert pair.simultaneous
    assert (pair.simultaneous.low, pair.simultaneous.high) == pytest.approx((-0.0889853, 0.1870245), abs=1e-6)
    assert [model.verdict for model in metric.models] == ["tied with 1 other as best", "tied with 1 other as best", "worst"]
    assert [(model.best_rank, model.worst_rank) for model in metric.models] == [(1, 2), (1, 2), (3, 3)]
    assert pair.adjusted_p == pytest.approx(0.4868502, abs=1e-6), "Holm leaves the largest as it is"
    assert metric.verdict.startswith("exact: a and b are tied as best; ")


def test_a_clear_winner_is_named_with_its_lead() -> None:
    a, b = draw_binary(40, 5, 100)
    metric = compare({"b": b, "a": a})

    assert metric.verdict.startswith("exact: a is best, 0.95 [0.8882, 0.9785]; it is ahead of b by 0.35 [")
    assert "(p < 0.0001, 100 items)" in metric.verdict


def test_for_costs_and_times_less_is_better() -> None:
    generator = np.random.default_rng(3)
    cheap, dear = generator.normal(1, 0.1, 40).tolist(), generator.normal(2, 0.1, 40).tolist()
    metric = compare({"dear": dear, "cheap": cheap}, scorer=COST)
    (pair,) = metric.pairs

    assert [(model.model, model.verdict) for model in metric.models] == [("cheap", "best"), ("dear", "worst")]
    assert (pair.a, pair.wins, pair.losses) == ("cheap", 40, 0)
    assert (pair.test.difference.value or 0) < 0
    assert metric.verdict.startswith("cost: cheap is best"), metric.verdict
    assert "ahead of dear by 1" in metric.verdict or "ahead of dear by 0.9" in metric.verdict


def test_a_failed_call_scores_0_or_drops_its_item_as_the_job_says() -> None:
    a: list[Any] = [1.0] * 20
    b: list[Any] = [FAILED] * 4 + [1.0] * 16
    zero, drop = compare({"a": a, "b": b}), compare({"a": a, "b": b}, failed="drop_item")

    assert [(model.model, model.mean.value) for model in zero.models] == [("a", 1.0), ("b", 0.8)]
    assert (zero.n, zero.dropped.total, zero.failures_are_zero) == (20, 0, True)
    assert [model.mean.value for model in drop.models] == [1.0, 1.0]
    assert (drop.n, drop.dropped.failed, drop.failures_are_zero) == (16, 4, False)


def test_a_failure_is_never_the_best_cost() -> None:
    report = build({"a": [1.0] * 20, "b": [FAILED] * 4 + [2.0] * 16}, scorer=COST)
    (metric,) = report.metrics

    assert (metric.n, metric.dropped.failed, metric.failures_are_zero) == (16, 4, False)
    assert any(note.startswith("cost: 0 is no bad score there") for note in report.notes)
    assert "4 calls failed (timeout 4); a failed call counts as a score of 0" in report.notes


def test_items_are_dropped_for_all_models_and_counted_once_by_reason() -> None:
    scores = {"a": [1.0, None, 1.0, ABSENT, 1.0] + [0.0, 1.0] * 10, "b": [1.0, 0.0, None, FAILED, ABSENT] + [0.0, 1.0] * 10}
    report = build(scores, failed="drop_item")
    (metric,) = report.metrics

    assert (metric.n, metric.dropped.unfinished, metric.dropped.failed, metric.dropped.unscored) == (21, 2, 0, 2)
    assert "exact: 4 of 25 items dropped (2 unfinished, 2 without a score)" in report.notes
    assert report.notes[0] == (
        "the job is done: 48 of 50 calls have ended. Short and easy items end first, so figures may change"
    )


def test_repeats_are_averaged_by_item_before_anything_is_compared() -> None:
    a: list[Any] = [[1.0, 1.0, 0.0, 1.0]] * 20
    b: list[Any] = [[0.0, 1.0, FAILED, None]] * 20
    metric = compare({"a": a, "b": b})
    first, second = metric.models

    assert (first.mean.value, first.mean.n) == (0.75, 20)
    assert second.mean.value == pytest.approx(1 / 3), "the failure counts 0, the answer without a score does not count"
    assert list(first.by_repeat) == [1.0, 1.0, 0.0, 1.0]
    assert list(second.by_repeat) == [0.0, 1.0, 0.0, None] or list(second.by_repeat) == [0.0, 1.0, 0.0]
    assert first.within_variance == pytest.approx(0.25)
    assert [(k, round(at, 4), round(hat, 4)) for k, at, hat in first.passes] == [(1, 0.75, 0.75), (2, 1.0, 0.5), (3, 1.0, 0.25)]


def test_clustered_items_widen_the_intervals() -> None:
    a, b = draw_binary(30, 10, 120)
    clusters = {item: str(item // 10) for item in range(120)}
    plain, clustered = compare({"a": a, "b": b}), compare({"a": a, "b": b}, clusters=clusters)

    def width(metric: MetricReport) -> float:
        interval = metric.pairs[0].test.difference.interval
        assert interval
        return interval.high - interval.low

    assert width(clustered) > 2 * width(plain)
    assert clustered.models[0].mean.method == "mean, clustered t"
    assert clustered.pairs[0].test.p_method.startswith("sign-flip permutation")


def test_too_few_items_give_no_interval_no_p_value_and_no_rank() -> None:
    report = build({"a": [1.0] * 5, "b": [0.0] * 5})
    (metric,) = report.metrics

    assert [model.verdict for model in metric.models] == ["not ranked"] * 2
    assert metric.pairs[0].test.p_value is None
    assert metric.models[0].mean.interval is None
    assert metric.verdict == (
        "exact: no verdict, because 5 items are too few for an interval or a p-value; at least 15 are needed"
    )
    assert any("5 items are too few" in note for note in report.notes)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": [None] * 20, "b": [None] * 20}, "exact: no item has a score of every model"),
        ({"a": [1.0] * 20}, "exact: a 1 [0.8389, 1]; nothing to compare it with"),
        ({"a": [0.5] * 20, "b": [0.5] * 20}, "exact: no verdict, because all items are tied"),
        ({"a": [ABSENT] * 20, "b": [1.0] * 20}, "exact: b 1 [0.8389, 1]; nothing to compare it with"),
        ({"a": [1.0, ABSENT] * 10, "b": [ABSENT, 1.0] * 10}, "exact: no item has a score of every model"),
    ],
)
def test_where_nothing_can_be_compared_a_sentence_says_so(scores: Any, words: str) -> None:
    report = build(scores)

    assert report.metrics[0].verdict == words
    json.dumps(render_report(report), allow_nan=False)


def test_with_few_discordant_items_the_smallest_possible_p_value_is_stated() -> None:
    a, b = draw_binary(3, 0, 20)
    report = build({"a": a, "b": b})

    assert report.metrics[0].pairs[0].test.smallest_p == 0.25
    assert "exact: so few items differ that no p-value below 0.25 could be reached for some pair" in report.notes
    table = table_pairs(render_report(report)["metrics"][0])
    assert dict(zip(table.columns, table.rows[0], strict=True))["smallest p"] == 0.25


def test_over_the_tests_of_several_scorers_chance_is_counted_once_more() -> None:
    a, b = draw_binary(19, 14, 100)
    one, two = build_measures({"a": a, "b": b}), build_measures({"a": [1.0] * 60 + [0.0] * 40, "b": [0.0] * 100})
    other = EXACT._replace(scorer=2, label="strict")
    for model, more in zip(one.models, two.models, strict=True):
        model.scores[2] = more.scores[1]
    report = build_report(replace(one, scorers=[EXACT, other]))
    discoveries = "of the 2 tests of all metrics together, 1 find"

    assert [note for note in report.notes if "Benjamini" in note and note.startswith(discoveries)]
    assert not [note for note in build({"a": a, "b": b}).notes if "Benjamini" in note], "one metric is one family already"


def test_figures_corrected_by_labels_say_that_clusters_are_not_in_their_intervals() -> None:
    scores = {"a": [1.0, 0.5] * 20, "b": [0.5, 1.0] * 20}
    judged = {f"{item}/{entry}.0": (values[item], None) for entry, values in enumerate(scores.values()) for item in range(40)}
    judge = JudgeMeasures(EXACT, "up/judge", "score", "random", judged, None)
    labels = {(item, entry, 0): 0.75 for item in range(0, 40, 2) for entry in (0, 1)}
    measures = replace(build_measures(scores), judges=[judge], labels=labels)
    for entry, model in enumerate(measures.models):
        model.entry = entry
    note = "figures corrected by people's labels take items as independent: clusters are not in their intervals"

    assert note in build_report(replace(measures, clusters={item: str(item // 4) for item in range(40)})).notes
    assert note not in build_report(measures).notes, "there are no clusters"


def test_latencies_are_compared_over_items_that_both_answered_failures_left_out() -> None:
    generator = np.random.default_rng(5)
    fast = generator.lognormal(0, 0.2, 60).tolist()
    slow = [value * 2 for value in fast]
    report = build({"fast": [1.0] * 60, "slow": [1.0] * 50 + [FAILED] * 10}, call_s={"fast": fast, "slow": slow})
    (pair,) = report.latencies
    operations = report.models[1].operations

    assert pair.median.n == 50
    assert pair.median.interval
    assert pair.median.interval.high < 0, "the first is faster"
    assert (operations.call.n, operations.answered, operations.failures) == (50, 50, {"timeout": 10})
    assert operations.call.percentiles[50] == pytest.approx(np.median(slow[:50]))
    assert operations.tokens_per_second == pytest.approx(500 / sum(slow[:50]))


def test_costs_are_summed_and_scaled_to_1000_items() -> None:
    operations = build({"a": [1.0] * 30}).models[0].operations

    assert operations.cost_usd == pytest.approx(0.06)
    assert operations.cost_per_1000.value == pytest.approx(2.0)
    assert operations.cost_per_1000.interval
    assert 1.6 < operations.cost_per_1000.interval.low < 2 < operations.cost_per_1000.interval.high < 2.4


def test_the_answer_has_its_declared_shape_and_names_every_method_once() -> None:
    a, b = draw_binary(19, 14, 100)
    rendered = render_report(build({"a": a, "b": b}))

    check_shape(json.loads(json.dumps(rendered)), ReportJson)
    assert len(rendered["methods"]) == len(set(rendered["methods"]))
    assert any(method.startswith("exact McNemar") for method in rendered["methods"])
    assert [tuple(cell.values()) for cell in rendered["metrics"][0]["pairs"][0]["grid"]] == [(0, 1, 14), (1, 0, 19), (1, 1, 67)]


def test_a_null_is_rejected_and_a_planted_difference_found_as_often_as_stated() -> None:
    """Three models over 300 jobs: the chance of any wrongly separated pair is at most 5 %, by ranks and by Holm."""
    generator = np.random.default_rng(11)
    wrong_ranks = wrong_p = found = 0
    runs = 300
    for _ in range(runs):
        base = generator.random(60)
        null = {name: (generator.random(60) < base).astype(float).tolist() for name in "abc"}
        metric = compare(null)
        wrong_ranks += any(model.best_rank != 1 for model in metric.models)
        wrong_p += any((pair.adjusted_p or 1) < 0.05 for pair in metric.pairs)
        planted = {name: (generator.random(200) < rate).astype(float).tolist() for name, rate in (("a", 0.8), ("b", 0.6))}
        best = compare(planted).models[0]
        found += (best.model, best.verdict) == ("a", "best")
    allowed = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5

    assert wrong_ranks / runs <= allowed
    assert wrong_p / runs <= allowed
    assert found / runs > 0.95
