"""Published and independently computed values of every method."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fanout.evaluate.statistics import bradley_terry, judges, latency, many, means, paired, power, repeats, sequential
from fanout.evaluate.statistics.estimates import Estimate, Interval, PairedTest
from fanout.evaluate.statistics.noninferiority import judge_noninferiority
from fanout.evaluate.statistics.preferences import JudgedPair, Verdict, combine_orders, position_consistency, win_rate

FOOD = """Pizza Sushi a,Burger Pasta b,Tacos Pizza a,Sushi Tacos b,Burger Pizza a,Pasta Sushi b,Tacos Burger a,Pizza Pasta tie,
Sushi Burger b,Pasta Tacos a,Burger Sushi b,Tacos Pizza a,Sushi Pasta tie,Burger Tacos a,Pizza Burger b,Pasta Tacos b,
Burger Sushi b,Tacos Pasta a,Pizza Tacos b,Sushi Burger a,Pasta Pizza b,Burger Sushi b,Tacos Pasta a,Pizza Sushi a,
Sushi Burger b,Pasta Tacos b,Tacos Pizza a,Burger Pasta b,Sushi Tacos a,Pizza Burger b"""
"""evalica's `food.csv` (Apache-2.0), whose scores stand in its `food-golden.csv`."""
VERDICTS: dict[str, Verdict] = {"a": "a", "b": "b", "tie": "tie"}
ORDERS: list[tuple[Verdict | None, Verdict | None]] = [("a", "a"), ("a", "b"), ("tie", "tie"), ("a", None)]
WINNERS: list[Verdict | None] = [*["a"] * 12, *["b"] * 6, *["tie"] * 4, *["both_bad"] * 2, *[None] * 3]  # type: ignore[list-item]


def read_food() -> list[JudgedPair]:
    rows = [row.split() for row in FOOD.replace("\n", "").split(",")]
    return [JudgedPair(number, a, b, VERDICTS[winner]) for number, (a, b, winner) in enumerate(rows)]


def get_bounds(interval: Interval | None) -> list[float]:
    assert interval is not None
    return [interval.low, interval.high]


def test_mcnemar_and_bonett_price_reproduce_agrestis_approval_table() -> None:
    assert paired.mcnemar_exact(86, 150) == pytest.approx(3.71594e-05, rel=1e-5)
    found = paired.compare_binary(150, 86, 1600)
    assert found.chi_squares == pytest.approx((17.35593, 16.81780), abs=5e-6)
    assert found.difference.value == pytest.approx(0.04)
    assert get_bounds(found.difference.interval) == pytest.approx([0.0211773, 0.0587228], abs=5e-8)


@pytest.mark.parametrize(
    ("better", "worse", "n", "comparisons", "low", "high"),
    [
        (1, 7, 21, 1, -0.508359, -0.013380),
        (19, 14, 100, 1, -0.0642611, 0.1623003),
        (19, 14, 100, 3, -0.0889853, 0.1870245),
    ],
)
def test_bonett_price_intervals_equal_the_published_ones(
    better: int, worse: int, n: int, comparisons: int, low: float, high: float
) -> None:
    interval = paired.bonett_price(better, worse, n, comparisons=comparisons)

    assert get_bounds(interval) == pytest.approx([low, high], abs=1e-6)


def test_exact_mcnemar_gives_the_published_p_and_its_smallest_possible_one() -> None:
    assert paired.mcnemar_exact(19, 14) == pytest.approx(0.4868502, abs=5e-8)
    assert paired.smallest_mcnemar_p(3) == 0.25
    assert paired.compare_binary(0, 3, 40).smallest_p == 0.25


def test_clustered_and_plain_standard_errors_equal_the_published_ones() -> None:
    assert means.standard_error(range(20), [value % 4 for value in range(20)]) == pytest.approx(0.645, abs=5e-4)
    assert means.standard_error(range(10)) == pytest.approx(0.957, abs=5e-4)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (10, 10, 0.722467, 1),
        (8, 10, 0.490162, 0.943318),
        (45, 50, 0.786398, 0.956524),
        (655, 1000, 0.624994, 0.683820),
        (126, 143, 0.8179, 0.9244),
    ],
)
def test_wilson_intervals_equal_the_published_ones(successes: int, n: int, low: float, high: float) -> None:
    assert means.wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_holm_and_benjamini_hochberg_adjust_p_values() -> None:
    assert many.adjust([0.01, 0.04, 0.03, 0.005], "benjamini_hochberg") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert many.adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_bradley_terry_strengths_equal_evalicas_on_its_food_data() -> None:
    ranking = bradley_terry.rank(read_food())

    assert [(rating.model, round(rating.strength or 0, 9)) for rating in ranking.ratings] == [
        ("Tacos", 0.434289828),
        ("Sushi", 0.190600285),
        ("Burger", 0.147976651),
        ("Pasta", 0.128153411),
        ("Pizza", 0.098979826),
    ]
    assert sum(rating.rating or 0 for rating in ranking.ratings) == pytest.approx(5000)
    tacos, pizza = ranking.ratings[0].rating, ranking.ratings[-1].rating
    assert tacos is not None
    assert pizza is not None
    assert tacos - pizza == pytest.approx(400 * math.log10(0.434289828 / 0.098979826), abs=1e-4)


def test_percentiles_are_interpolated() -> None:
    found = latency.percentiles(range(1, 101), (50, 90, 95, 99))
    assert found == pytest.approx({50: 50.5, 90: 90.1, 95: 95.05, 99: 99.01})


def test_each_token_after_the_first_has_the_published_time() -> None:
    ttft, e2e, tokens = np.array([[100, 210, 3], [100, 210, 1], [100, 210, 0], [np.nan, 210, 3], [100, 210, np.nan]]).T

    assert latency.time_per_token(ttft, e2e, tokens) == pytest.approx([55, *[np.nan] * 4], nan_ok=True)


def test_a_uniform_prior_changes_the_mixture_e_value() -> None:
    assert sequential.mixture_path(np.array([12]), np.array([3]), prior=1) == pytest.approx(4.501099, abs=5e-7)


@pytest.mark.parametrize(
    ("wins", "losses", "e_value"), [(12, 3, 3.627441), (20, 2, 853.640871), (19, 14, 0.201596), (0, 0, 1.0)]
)
def test_mixture_e_values_equal_the_formula(wins: int, losses: int, e_value: float) -> None:
    assert sequential.evidence_path([0.0, *[1.0] * wins, *[-1.0] * losses])[-1] == pytest.approx(e_value, abs=5e-7)


def test_a_judged_rate_is_corrected_by_the_judges_error_on_labels() -> None:
    found = judges.rogan_gladen(700, 1000, true_positives=54, labelled_positives=60, true_negatives=32, labelled_negatives=40)

    assert found.value == pytest.approx(0.714286, abs=5e-7)
    assert found.standard_error == pytest.approx(0.051544, abs=5e-7)
    assert get_bounds(found.interval) == pytest.approx([0.613261, 0.815311], abs=5e-7)
    assert found.note is None


def test_ppi_combines_few_labels_with_many_judgements() -> None:
    labels = [0 if i % 5 == 0 else 1 for i in range(40)]
    judged = [1 - y if i % 7 == 0 else y for i, y in enumerate(labels)]
    unlabelled = [1 if j % 10 < 8 else 0 for j in range(200)]

    found, weight = judges.ppi_mean(labels, judged, unlabelled)

    assert weight == pytest.approx(0.444444, abs=5e-7)
    assert found.value == pytest.approx(0.822222, abs=5e-7)
    assert found.standard_error == pytest.approx(0.054147, abs=5e-7)
    assert get_bounds(found.interval) == pytest.approx([0.716097, 0.928347], abs=2e-6)
    assert judges.effective_labels(labels, found.standard_error or 0) == pytest.approx(55.97, abs=5e-3)


def test_a_rate_is_corrected_by_the_judges_errors_and_another_mean_by_ppi() -> None:
    people = [1.0] * 60 + [0.0] * 40
    judge = [1.0] * 54 + [0.0] * 6 + [1.0] * 8 + [0.0] * 32
    rest = [1.0] * 638 + [0.0] * 262
    rate = judges.correct_mean(people, judge, rest)
    graded = judges.correct_mean(people, judge, [*rest[:-1], 0.5])

    assert rate.estimate.method == "judged rate, Rogan–Gladen"
    assert rate.estimate.value == pytest.approx(0.714286, abs=5e-7)
    assert (rate.labels, rate.weight) == (100, None)
    assert graded.estimate.method == "mean, PPI++"
    assert 0.5 < (graded.weight or 0) < 1
    assert 100 < (graded.effective_labels or 0) < 300


def test_required_items_follow_the_formula_and_its_parts() -> None:
    assert power.required_items(0.1, between_variance=0.25) == 197
    assert power.required_items(0.1, between_variance=0.2, within_a=0.1, within_b=0.1, repeats_a=4, repeats_b=4) == 197
    assert power.binary_variance(0.3, 0.05) == pytest.approx(0.2875)
    n = power.required_items(0.25, between_variance=power.binary_variance(0.3, 0.05))
    assert n == 37, "the planned number of statistics.md's first example"
    assert power.detectable_difference(197, 0.25) == pytest.approx(0.1, abs=3e-4)


def test_repeats_give_pass_at_k_and_pass_hat_k() -> None:
    assert repeats.pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert repeats.pass_at_k(10, 3, 5) == pytest.approx(1 - 21 / 252)
    assert repeats.pass_hat_k(10, 8, 2) == pytest.approx(28 / 45)


def test_kappa_takes_chance_out_of_agreement() -> None:
    judge = ["good"] * 25 + ["bad"] * 25
    people = ["good"] * 20 + ["bad"] * 5 + ["good"] * 10 + ["bad"] * 15

    assert judges.cohens_kappa(judge, people) == pytest.approx(0.4)
    assert judges.agreement(judge, people) == pytest.approx(0.7)
    assert judges.position_bias(30, 10) == pytest.approx(0.5)


def test_both_orders_must_agree_for_a_win() -> None:
    assert [combine_orders(*pair) for pair in ORDERS] == ["a", "tie", "tie", None]
    assert position_consistency(ORDERS) == pytest.approx(2 / 3)


def test_the_win_rate_counts_ties_half_and_omits_errors() -> None:
    found = win_rate([JudgedPair(number, "x", "y", winner) for number, winner in enumerate(WINNERS)], "x", "y")
    mirrored = win_rate([JudgedPair(number, "x", "y", winner) for number, winner in enumerate(WINNERS)], "y", "x")

    assert (found.wins, found.losses, found.ties, found.errors) == (12, 6, 6, 3)
    assert found.rate.value == pytest.approx(15 / 24)
    assert mirrored.rate.value == pytest.approx(9 / 24)
    assert 15 / 24 in (found.rate.interval or Interval(1, 0))


@pytest.mark.parametrize(
    ("interval", "state"),
    [
        (Interval(-0.01, 0.05), "pass"),
        (Interval(-0.09, -0.03), "fail"),
        (Interval(-0.05, 0.05), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_a_gate_passes_fails_or_is_inconclusive_by_the_interval_alone(interval: Interval | None, state: str) -> None:
    estimate = Estimate(0.0, interval, 100, "paired mean, t", note=None if interval else "3 items are too few")

    gate = judge_noninferiority(PairedTest(estimate, None, "none"), 0.02)

    assert gate.state == state
    assert gate.sentence.startswith(state)
