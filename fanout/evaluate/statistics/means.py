"""Mean score of one model, with an interval: by t, by Wilson for 0/1 scores, or clustered."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from fanout.evaluate.statistics.estimates import (
    LEVEL,
    MIN_ITEMS,
    Estimate,
    Floats,
    Interval,
    is_binary,
    is_constant,
    mean_of,
    to_floats,
    too_few,
)


def estimate_mean(scores: Sequence[float] | Floats, *, level: float = LEVEL) -> Estimate:
    """Return the mean over items: Wilson's interval for 0/1 scores, else Student's t.

    Source: Wilson (1927), by statsmodels' `proportion_confint(method="wilson")`.

    Args:
        scores: one an item, repeats averaged.
    """
    values = to_floats(scores)
    # t would give intervals beyond 0 … 1, and none at all where every answer is right.
    if values.size and is_binary(values):
        return estimate_proportion(int(values.sum()), values.size, level=level)
    return estimate_continuous_mean(values, level=level)


def estimate_continuous_mean(scores: Sequence[float] | Floats, *, level: float = LEVEL) -> Estimate:
    """Return the mean over items with Student's interval, also where all values happen to be 0 or 1."""
    values = to_floats(scores)
    if values.size < MIN_ITEMS:
        return Estimate(mean_of(values), None, values.size, "mean", note=too_few(values.size))
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
    # A width of 0 would claim certainty from what may be luck or a broken scorer.
    if is_constant(values):
        return Estimate(
            mean, None, values.size, "mean, t", 0.0, "all scores are equal: their spread, so an interval, is unknown"
        )
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1)) * error
    return Estimate(mean, Interval(mean - half, mean + half, level), values.size, "mean, t", error)


def estimate_proportion(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """Return a share with Wilson's interval.

    Raises:
        ValueError: more successes than items, or fewer than none.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes among {n} items")
    if n < MIN_ITEMS:
        return Estimate(successes / n if n else None, None, n, "share", note=too_few(n))
    low, high = wilson_interval(successes, n, level=level)
    share = successes / n
    return Estimate(share, Interval(low, high, level), n, "share, Wilson", float(np.sqrt(share * (1 - share) / n)))


def wilson_interval(successes: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval, whatever the number of items."""
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def standard_error(scores: Sequence[float] | Floats, clusters: Sequence[Hashable] | None = None) -> float:
    """Return the standard error of the mean; clustered where items of one document, or paraphrases, belong together.

    Formula: √(C/(C−1) · Σ_c (Σ_{i∈c} (s_i − s̄))²) / n. Source: Miller, arXiv 2411.00640.

    Raises:
        ValueError: fewer than two values, or fewer than two clusters.
    """
    values = to_floats(scores)
    if clusters is None:
        if values.size < 2:
            raise ValueError("a standard error needs at least two values")
        return float(values.std(ddof=1) / np.sqrt(values.size))
    if len(clusters) != values.size:
        raise ValueError(f"{values.size} values, but {len(clusters)} clusters")
    # Residuals of one cluster are summed before they are squared: that is what keeps their common part from averaging out.
    sums = sum_clusters(values - values.mean(), clusters)
    if sums.size < 2:
        raise ValueError("a clustered standard error needs at least two clusters")
    return float(np.sqrt(sums.size / (sums.size - 1) * (sums**2).sum()) / values.size)


def sum_clusters(values: Floats, clusters: Sequence[Hashable]) -> Floats:
    """Return the sum of each cluster's values."""
    sums: dict[Hashable, float] = {}
    for cluster, value in zip(clusters, values.tolist(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    return np.array(list(sums.values()))


def estimate_clustered_mean(
    scores: Sequence[float] | Floats, clusters: Sequence[Hashable], *, level: float = LEVEL
) -> Estimate:
    """Return the mean with a cluster-robust interval, by t with clusters − 1 degrees of freedom."""
    values = to_floats(scores)
    count = len(set(clusters))
    if values.size < MIN_ITEMS or count < 2:
        reason = too_few(values.size) if values.size < MIN_ITEMS else "all items are of one cluster: no interval"
        return Estimate(mean_of(values), None, values.size, "mean, clustered", note=reason)
    mean, error = float(values.mean()), standard_error(values, clusters)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    # Given, with a warning: the sandwich is too narrow for few clusters, but without it the interval would be narrower still.
    note = f"{count} clusters: few for a clustered interval" if count < MIN_ITEMS else None
    return Estimate(mean, Interval(mean - half, mean + half, level), values.size, "mean, clustered t", error, note)
