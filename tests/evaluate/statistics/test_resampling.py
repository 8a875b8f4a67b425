"""The fast paths of permutation tests and bootstraps give what the textbook paths give."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fanout.evaluate.statistics import many, paired, resampling
from tests.support.timing import timed

GENERATOR_SEED = 7


def test_random_permutations_agree_with_scipys_test() -> None:
    values = np.random.default_rng(GENERATOR_SEED).normal(0.25, 1, 60)
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=99_999, rng=np.random.default_rng(1)
    )

    assert resampling.sign_flip_p(values) == pytest.approx(reference.pvalue, abs=0.006)


def test_few_differences_are_permuted_exactly() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 0.0]

    assert resampling.sign_flip_p(values) == pytest.approx(2 / 2**5), "of all signs, only equal ones reach the sum"
    assert resampling.smallest_sign_flip_p(values) == 2 / 2**5
    assert resampling.describe_sign_flip(values) == "sign-flip permutation, exact"


def test_equal_sums_count_as_reached_whatever_the_order_of_summation() -> None:
    values = np.array([0.1, 0.2, 0.3] * 8)

    assert resampling.sign_flip_p(values) == 1 / 10_000, "no random permutation reaches the largest sum"
    assert resampling.sign_flip_p(np.concatenate((values, -values))) == 1.0, "a sum of 0 is always reached"


def test_the_normal_limit_continues_the_random_permutations() -> None:
    generator = np.random.default_rng(GENERATOR_SEED)
    values = generator.exponential(1, resampling.MAX_PERMUTED) * generator.choice(
        [-1, 1], resampling.MAX_PERMUTED, p=[0.49, 0.51]
    )
    permuted = resampling.sign_flip_p(values)
    limit = resampling.sign_flip_p(np.concatenate((values, [1e-9])))

    assert permuted == pytest.approx(limit, abs=0.006)
    assert resampling.smallest_sign_flip_p(np.concatenate((values, [1e-9]))) is None


def test_percentile_intervals_of_many_items_agree_with_bca_of_as_many() -> None:
    generator = np.random.default_rng(GENERATOR_SEED)
    a = generator.lognormal(0, 0.5, 600)
    b = a * generator.lognormal(0.1, 0.3, 600)
    for statistic in ("median", "p95"):
        fast = resampling.bootstrap_difference(a, b, statistic)

        def difference(x: np.ndarray, y: np.ndarray, axis: int = -1, statistic: str = statistic) -> np.ndarray:
            rank = 50 if statistic == "median" else 95
            return np.asarray(np.percentile(x, rank, axis=axis) - np.percentile(y, rank, axis=axis))

        slow = stats.bootstrap((a, b), difference, paired=True, method="percentile", n_resamples=9_999, batch=500)
        assert fast.interval
        assert fast.value == pytest.approx(float(difference(a, b)))
        width = slow.confidence_interval.high - slow.confidence_interval.low
        assert fast.interval.low == pytest.approx(slow.confidence_interval.low, abs=width / 10)
        assert fast.interval.high == pytest.approx(slow.confidence_interval.high, abs=width / 10)


def test_a_weighted_percentile_is_that_of_the_repeated_values() -> None:
    generator = np.random.default_rng(GENERATOR_SEED)
    values, counts = np.sort(generator.normal(size=50)), generator.integers(0, 4, 50)
    repeated = np.repeat(values, counts)
    wanted = (0, 12.5, 50, 95, 100)
    found = resampling._weighted_percentiles(values, counts.astype(np.int32), wanted)

    assert found.tolist() == pytest.approx(np.percentile(repeated, wanted).tolist())


@timed
def test_a_hundred_thousand_items_are_tested_and_resampled_within_seconds() -> None:
    generator = np.random.default_rng(GENERATOR_SEED)
    a, b = generator.lognormal(0, 1, 100_000), generator.lognormal(0, 1, 100_000)
    began = time.process_time()
    assert 0 <= resampling.sign_flip_p(a - b) <= 1
    assert resampling.sign_flip_p((a - b)[: resampling.MAX_PERMUTED]) > 0
    assert resampling.bootstrap_difference(a, b, "p95").interval
    assert time.process_time() - began < 20


def test_clustered_items_are_compared_by_their_clusters_alone() -> None:
    """Copies of an item add no evidence: p-value and interval stay about those of the items without copies."""
    generator = np.random.default_rng(GENERATOR_SEED)
    differences = generator.normal(0.2, 1, 40)
    copies, clusters = np.repeat(differences, 10), np.repeat(np.arange(40), 10).tolist()
    zeros = np.zeros(copies.size)
    plain = paired.compare_continuous(differences, np.zeros(40))
    clustered = paired.compare(copies, zeros, clusters=clusters)
    naive = paired.compare(copies, zeros)
    simultaneous = many.simultaneous_intervals({"a": copies, "b": zeros}, clusters=clusters)[("a", "b")]

    assert plain.difference.interval
    assert clustered.difference.interval
    assert clustered.difference.interval.low == pytest.approx(plain.difference.interval.low, rel=1e-9)
    assert clustered.p_value == plain.p_value
    assert (naive.p_value or 1) < (plain.p_value or 0) / 10, "taken as independent, the copies seem to prove it"
    assert simultaneous
    assert simultaneous.low == pytest.approx(plain.difference.interval.low, rel=1e-9)


def test_adjusted_p_values_are_those_of_statsmodels() -> None:
    generator = np.random.default_rng(GENERATOR_SEED)
    for size in (1, 2, 7, 30):
        p_values = generator.random(size) ** 3
        assert many.adjust(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())
    assert many.adjust([0.02, 0.02, 0.5]) == pytest.approx([0.06, 0.06, 0.5])
    assert many.adjust([]) == []


def test_items_of_a_single_cluster_give_neither_interval_nor_p_value() -> None:
    test = paired.compare([0.0, 1.0] * 10, [1.0, 0.5] * 10, clusters=["one"] * 20)

    assert (test.p_value, test.difference.interval) == (None, None)
    assert test.difference.note == "all items are of one cluster: no interval and no p-value"
