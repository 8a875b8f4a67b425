"""The package errorbars, written by others from the formulas, as a second opinion on drawn scores."""

from __future__ import annotations

import numpy as np
import pytest
from errorbars.compare import paired_compare
from errorbars.stats import cluster_robust_se, mean_ci_clt, wilson_ci

from fanout.evaluate.statistics import means, paired

GENERATOR = np.random.default_rng(17)
CLUSTERS = [number // 5 for number in range(200)]
BASE = np.repeat(GENERATOR.random(40), 5)
A, B = (np.clip(BASE + GENERATOR.normal(shift, 0.2, 200), 0, 1) for shift in (0.05, 0.0))
"""Scores that hang together within their clusters."""


def test_standard_errors_are_those_of_errorbars() -> None:
    assert means.standard_error(A) == pytest.approx(mean_ci_clt(A).se)
    assert means.standard_error(A, CLUSTERS) == pytest.approx(cluster_robust_se(A, CLUSTERS))
    assert means.standard_error(A, CLUSTERS) > 1.5 * means.standard_error(A)


def test_wilson_intervals_are_those_of_errorbars() -> None:
    for successes in (0, 1, 17, 39, 40):
        other = wilson_ci(successes, 40)
        assert means.wilson_interval(successes, 40) == pytest.approx((other.ci_low, other.ci_high))


def test_paired_differences_have_the_intervals_of_errorbars() -> None:
    other = paired_compare(A, B, clusters=CLUSTERS)
    plain, clustered = paired.compare(A, B).difference, paired.compare(A, B, clusters=CLUSTERS).difference

    assert plain.value == pytest.approx(other.mean_diff)
    assert plain.interval
    assert clustered.interval
    assert (plain.interval.low, plain.interval.high) == pytest.approx((other.ci_low, other.ci_high))
    expected = (other.ci_low_clustered, other.ci_high_clustered)
    assert (clustered.interval.low, clustered.interval.high) == pytest.approx(expected)


def test_mcnemars_p_value_is_that_of_errorbars() -> None:
    a, b = (A > 0.6).astype(float), (B > 0.6).astype(float)
    other = paired_compare(a, b).mcnemar

    assert other
    assert paired.compare(a, b).p_value == pytest.approx(other.p_value)
