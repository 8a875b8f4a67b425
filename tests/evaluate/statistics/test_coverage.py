"""Intervals cover the truth, and tests raise false alarms, as often as they say: simulated with fixed seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fanout.evaluate.statistics import bradley_terry, judges, means, paired, resampling, sequential
from fanout.evaluate.statistics.estimates import Interval
from fanout.evaluate.statistics.preferences import JudgedPair
from fanout.evaluate.statistics.sequential import StoppingRule

RUNS = 1_000
ERROR = 3 * (0.95 * 0.05 / RUNS) ** 0.5
"""Three Monte Carlo standard errors of a nominal 95 %."""
Draw = Callable[[np.random.Generator], Interval | None]


def measure_coverage(truth: float, draw: Draw, runs: int = RUNS) -> float:
    generator = np.random.default_rng(20_260_101)
    return sum(truth in (draw(generator) or Interval(1, 0)) for _ in range(runs)) / runs


def draw_two_models(generator: np.random.Generator, n: int = 60) -> tuple[list[float], list[float]]:
    """Draw 0/1 scores: A alone is right on 20 % of items, B alone on 10 %."""
    kinds = generator.choice(4, size=n, p=[0.2, 0.1, 0.5, 0.2])
    return [float(kind in (0, 2)) for kind in kinds], [float(kind in (1, 2)) for kind in kinds]


@pytest.mark.parametrize(
    ("truth", "draw"),
    [
        (0.7, lambda generator: means.estimate_mean(generator.binomial(1, 0.7, 80).astype(float)).interval),
        (0.5, lambda generator: means.estimate_mean(generator.beta(2, 2, 40)).interval),
        (0.1, lambda generator: paired.compare(*draw_two_models(generator)).difference.interval),
        (0.2, lambda generator: paired.compare_continuous(generator.normal(0.2, 1, 30), np.zeros(30)).difference.interval),
    ],
    ids=["Wilson", "t", "Bonett–Price", "paired t"],
)
def test_a_nominal_95_percent_interval_covers_that_often(truth: float, draw: Draw) -> None:
    assert measure_coverage(truth, draw) == pytest.approx(0.95, abs=ERROR + 0.005)


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    clusters = np.repeat(np.arange(30), 4)

    def draw(generator: np.random.Generator, clustered: bool) -> Interval | None:
        values = np.repeat(generator.normal(0, 1, 30), 4) + generator.normal(0, 0.3, 120)
        return (
            means.estimate_clustered_mean(values, clusters.tolist()).interval
            if clustered
            else means.estimate_mean(values.tolist()).interval
        )

    assert measure_coverage(0, lambda generator: draw(generator, True)) == pytest.approx(0.95, abs=ERROR + 0.005)
    assert measure_coverage(0, lambda generator: draw(generator, False)) < 0.80


def test_the_paired_bootstrap_of_a_median_covers_the_true_difference() -> None:
    def draw(generator: np.random.Generator) -> Interval | None:
        a = generator.lognormal(0, 1, 80)
        return resampling.bootstrap_difference(a, a * generator.lognormal(0, 0.2, 80), resamples=999).interval

    assert measure_coverage(0.0, draw, runs=200) > 0.90


def test_the_permutation_test_raises_false_alarms_at_its_level() -> None:
    generator = np.random.default_rng(7)
    alarms = [resampling.sign_flip_p(generator.normal(0, 1, 10)) <= 0.05 for _ in range(RUNS)]

    assert np.mean(alarms) == pytest.approx(0.05, abs=ERROR)


def test_corrected_rates_cover_the_true_rate() -> None:
    def draw(generator: np.random.Generator) -> Interval | None:
        truth, sensitivity, specificity = 0.6, 0.9, 0.8
        positives = generator.binomial(500, truth * sensitivity + (1 - truth) * (1 - specificity))
        return judges.rogan_gladen(
            int(positives),
            500,
            true_positives=int(generator.binomial(150, sensitivity)),
            labelled_positives=150,
            true_negatives=int(generator.binomial(150, specificity)),
            labelled_negatives=150,
        ).interval

    assert measure_coverage(0.6, draw) == pytest.approx(0.95, abs=ERROR + 0.01)


def test_ppi_covers_and_is_narrower_than_labels_alone() -> None:
    widths = []

    def draw(generator: np.random.Generator) -> Interval | None:
        labels = generator.binomial(1, 0.6, 80)
        judged = np.where(generator.random(80) < 0.9, labels, 1 - labels)
        true = generator.binomial(1, 0.6, 800)
        rest = np.where(generator.random(800) < 0.9, true, 1 - true)
        estimate, _ = judges.ppi_mean(labels.astype(float), judged.astype(float), rest.astype(float))
        alone = means.estimate_mean(labels.tolist()).interval
        assert estimate.interval
        assert alone
        widths.append((estimate.interval.high - estimate.interval.low) / (alone.high - alone.low))
        return estimate.interval

    assert measure_coverage(0.6, draw) == pytest.approx(0.95, abs=ERROR + 0.015)
    assert np.median(widths) < 0.85


def test_means_corrected_by_labels_cover_what_people_would_say_where_the_judge_is_lenient() -> None:
    naive = []

    def draw(generator: np.random.Generator) -> Interval | None:
        truth = generator.choice([0.0, 0.25, 0.5, 0.75, 1.0], 600)
        judged = np.clip(truth + generator.choice([0.0, 0.25], 600), 0, 1)
        alone = means.estimate_mean(judged.tolist()).interval
        assert alone
        naive.append(0.5 in alone)
        return judges.correct_mean(truth[:60], judged[:60], judged[60:]).estimate.interval

    assert measure_coverage(0.5, draw) == pytest.approx(0.95, abs=ERROR + 0.015)
    assert np.mean(naive) < 0.05


def test_bradley_terry_intervals_cover_the_true_ratings() -> None:
    beta = np.array([0.6, 0.0, -0.6])

    def draw(generator: np.random.Generator) -> Interval | None:
        pairs = []
        for prompt in range(100):
            for a, b in ((0, 1), (1, 2), (0, 2)):
                won = generator.random() < 1 / (1 + np.exp(beta[b] - beta[a]))
                pairs.append(JudgedPair(prompt, "xyz"[a], "xyz"[b], "a" if won else "b"))
        return next(rating.interval for rating in bradley_terry.rank(pairs).ratings if rating.model == "x")

    assert measure_coverage(1000 + 400 / np.log(10) * 0.6, draw, runs=300) == pytest.approx(0.95, abs=0.04)


def draw_discordant(
    generator: np.random.Generator, wins: float, losses: float, n: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return generator.choice([1.0, -1.0, 0.0], size=n, p=[wins, losses, 1 - wins - losses])


def test_watching_every_item_raises_fewer_false_alarms_than_alpha_where_a_plain_z_raises_many() -> None:
    generator = np.random.default_rng(11)
    alarms = plain = 0
    for _ in range(RUNS):
        differences = draw_discordant(generator, 0.15, 0.15, 1_000)
        alarms += bool((sequential.evidence_path(differences) >= 20).any())
        steps = np.arange(1, 1_001)
        z = np.cumsum(differences) / np.sqrt(np.maximum(np.cumsum(differences**2), 1e-9))
        plain += bool((np.abs(z[20:]) > 1.96).any() and steps.size)
    assert alarms / RUNS <= 0.05
    assert plain / RUNS > 0.30


def test_betting_on_bounded_scores_holds_its_level_and_finds_a_difference() -> None:
    generator = np.random.default_rng(12)
    null = [bool((sequential.evidence_path(generator.uniform(-1, 1, 500)) >= 20).any()) for _ in range(RUNS)]
    shifted = [
        bool((sequential.evidence_path(np.clip(generator.normal(0.2, 0.4, 500), -1, 1)) >= 20).any()) for _ in range(100)
    ]

    assert np.mean(null) <= 0.05
    assert np.mean(shifted) > 0.95


def test_a_confidence_sequence_covers_at_every_look() -> None:
    generator = np.random.default_rng(13)
    misses = 0
    for _ in range(200):
        low, high = sequential.confidence_path(draw_discordant(generator, 0.3, 0.1, 200))
        misses += bool(((low > 0.2) | (high < 0.2)).any())
    assert misses / 200 <= 0.05


def test_equivalence_is_not_declared_where_the_difference_is_the_margin() -> None:
    generator = np.random.default_rng(14)
    rule = StoppingRule(alpha=0.05, margin=0.1, max_items=1_500)
    alarms = [sequential.decide(draw_discordant(generator, 0.2, 0.1, 1_500), rule).state == "equivalence" for _ in range(300)]
    found = [sequential.decide(draw_discordant(generator, 0.03, 0.03, 1_500), rule).state == "equivalence" for _ in range(100)]

    assert np.mean(alarms) <= 0.05
    assert np.mean(found) > 0.8


def test_fewer_than_2_in_100_unchanged_runs_fail_a_gate() -> None:
    from fanout.evaluate.statistics.noninferiority import judge_noninferiority

    generator = np.random.default_rng(15)
    states = []
    for _ in range(500):
        a, b = generator.binomial(1, 0.7, (2, 200)).astype(float)
        states.append(judge_noninferiority(paired.compare(a, b), 0.02).state)

    assert states.count("fail") / 500 < 0.02
