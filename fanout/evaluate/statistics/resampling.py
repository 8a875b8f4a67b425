"""Permutation tests and bootstraps, with bounded time and memory however many items there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fanout.evaluate.statistics.estimates import LEVEL, MIN_ITEMS, Estimate, Floats, Interval, is_constant, to_floats, too_few

RESAMPLES = 9_999
"""Of permutation tests and bootstraps; with the observed one p-values have a grain of 1/10,000."""
SEED = 20_260_101
"""Fixed, so that a report made twice shows the same figures."""
MAX_PERMUTED = 10_000
"""Differences beyond which the permutation distribution of their sum is taken as normal. It is symmetric, so the error is of
the order 1/n, below that of as many random permutations."""
MAX_BCA_ITEMS = 500
"""Items beyond which percentile intervals are used: BCa's acceleration takes n² steps, and its correction vanishes with n."""
MANY_RESAMPLES = 1_999
"""Resamples beyond `MAX_BCA_ITEMS`."""
CHUNK_BITS = 8_000_000
"""Random signs held at once."""


def sign_flip_p(differences: Sequence[float] | Floats) -> float:
    """Return the two-sided p-value of the mean difference under random signs.

    Exact where 2ⁿ ≤ 9,999, by scipy's `permutation_test(permutation_type="samples")`; else 9,999 random permutations, the same
    test a hundred times faster; beyond 10,000 differences the normal limit.
    """
    values = _drop_ties(differences)
    if not values.size:
        return 1.0
    if 2**values.size <= RESAMPLES:
        result = stats.permutation_test((values,), _mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True)
        return float(result.pvalue)
    if values.size > MAX_PERMUTED:
        return float(2 * stats.norm.sf(abs(values.sum()) / np.sqrt((values**2).sum())))
    return _permute(np.abs(values), abs(float(values.sum())))


def _permute(sizes: Floats, observed: float) -> float:
    """Return the share of random signs, with the observed ones, that give at least the observed sum."""
    generator = np.random.default_rng(SEED)
    total, reached, left = float(sizes.sum()), 0, RESAMPLES
    threshold = observed - 1e-12 * total  # sums that differ by rounding alone are equal
    while left:
        rows = min(left, max(1, CHUNK_BITS // sizes.size))
        # Signs by the bit: a generator's byte serves eight of them.
        bits = np.unpackbits(generator.integers(0, 256, (rows, -(-sizes.size // 8)), dtype=np.uint8), axis=1)
        sums = 2 * (bits[:, : sizes.size].astype(np.float64) @ sizes) - total
        reached += int((np.abs(sums) >= threshold).sum())
        left -= rows
    # The observed signs are one of the permutations: without them p could be 0, which no finite sample supports.
    return (reached + 1) / (RESAMPLES + 1)


def describe_sign_flip(differences: Sequence[float] | Floats) -> str:
    """Return the name of the test that `sign_flip_p` makes."""
    count = _drop_ties(differences).size
    kind = "exact" if 2**count <= RESAMPLES else f"{RESAMPLES:,} permutations" if count <= MAX_PERMUTED else "normal limit"
    return f"sign-flip permutation, {kind}"


def smallest_sign_flip_p(differences: Sequence[float] | Floats) -> float | None:
    """Return the smallest p-value that so many non-zero differences could reach; `None` in the normal limit."""
    count = _drop_ties(differences).size
    if count > MAX_PERMUTED:
        return None
    exact = min(1.0, 2 * 0.5**count)
    return exact if 2**count <= RESAMPLES else max(exact, 1 / (RESAMPLES + 1))


def _drop_ties(differences: Sequence[float] | Floats) -> Floats:
    values = to_floats(differences)
    return np.asarray(values[values != 0])  # a tie has no sign to flip


def bootstrap_difference(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    statistic: str = "median",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a paired bootstrap interval for the difference of a percentile.

    Source: `scipy.stats.bootstrap(paired=True, method="BCa")`; plain percentiles where BCa is undefined.

    Args:
        a: values of A, one an item.
        b: values of B for the same items in the same order.
        statistic: "median", or a percentile as "p95".

    Raises:
        ValueError: the two have different lengths.
    """
    first, second = to_floats(a), to_floats(b)
    if first.size != second.size:
        raise ValueError(f"{first.size} values of A, but {second.size} of B: align them by item first")
    n, label, percentile = first.size, f"difference of {statistic}s", _to_percentile(statistic)
    if not n:
        return Estimate(None, None, 0, label, note=too_few(0))

    def difference(x: Floats, y: Floats, axis: int = -1) -> Floats:
        return np.asarray(np.percentile(x, percentile, axis=axis) - np.percentile(y, percentile, axis=axis))

    value = float(difference(first, second))
    if n < MIN_ITEMS:
        return Estimate(value, None, n, label, note=too_few(n))
    if is_constant(first - second):
        return Estimate(value, None, n, label, note="every item has the same difference: no interval")
    if n > MAX_BCA_ITEMS:
        return bootstrap_percentiles(first, second, (statistic,), level=level)[0]
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():  # a statistic without spread makes BCa divide by 0; the check below sees the NaN
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                (first, second),
                difference,
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(SEED),
                # scipy would otherwise make all resamples at once: 9,999 × n numbers.
                batch=max(1, 1_000_000 // n),
            )
        low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
        if np.isfinite(low) and np.isfinite(high):
            return Estimate(value, Interval(low, high, level), n, f"{label}, paired bootstrap ({method})")
    return Estimate(value, None, n, label, note="the bootstrap distribution has no spread")


def bootstrap_percentiles(
    a: Sequence[float] | Floats, b: Sequence[float] | Floats, statistics: Sequence[str], *, level: float = LEVEL
) -> list[Estimate]:
    """Return `bootstrap_difference` for each of "median", "p95" …: of many items all from the same resamples.

    No resample of many items is sorted: the percentiles follow from how often each item was drawn.
    """
    first, second = to_floats(a), to_floats(b)
    n = first.size
    if n <= MAX_BCA_ITEMS or is_constant(first - second):
        return [bootstrap_difference(first, second, statistic, level=level) for statistic in statistics]
    generator = np.random.default_rng(SEED)
    percentiles = [_to_percentile(statistic) for statistic in statistics]
    orders = [(values[order], order) for values, order in ((first, np.argsort(first)), (second, np.argsort(second)))]
    drawn = np.empty((MANY_RESAMPLES, len(statistics)))
    for index in range(MANY_RESAMPLES):
        # The same draw for both models and all percentiles: pairs stay pairs.
        counts = np.bincount(generator.integers(n, size=n, dtype=np.int32), minlength=n).astype(np.int32)
        x, y = (_weighted_percentiles(values, counts[order], percentiles) for values, order in orders)
        drawn[index] = x - y
    bounds = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    found = np.percentile(first, percentiles) - np.percentile(second, percentiles)
    return [
        _to_estimate(statistic, float(value), Interval(float(low), float(high), level), n)
        for statistic, value, low, high in zip(statistics, found, *bounds, strict=True)
    ]


def _to_estimate(statistic: str, value: float, interval: Interval, n: int) -> Estimate:
    label = f"difference of {statistic}s"
    if interval.low == interval.high:
        return Estimate(value, None, n, label, note="the bootstrap distribution has no spread")
    return Estimate(value, interval, n, f"{label}, paired bootstrap (percentile, {MANY_RESAMPLES:,} resamples)")


def _weighted_percentiles(ordered: Floats, counts: NDArray[np.int32], percentiles: Sequence[float]) -> Floats:
    """Return percentiles, by linear interpolation, of a sample in which each value of `ordered` occurs `counts` times."""
    places = np.cumsum(counts, dtype=np.int32)
    last = int(places[-1]) - 1
    ranks = np.array(percentiles) * last / 100
    below = ranks.astype(np.int64)
    low = ordered[np.searchsorted(places, below, side="right")]
    high = ordered[np.searchsorted(places, np.minimum(below + 1, last), side="right")]
    return np.asarray(low + (high - low) * (ranks - below))


def _mean(values: Floats, axis: int = -1) -> Floats:
    return np.asarray(values.mean(axis=axis))


def _to_percentile(statistic: str) -> float:
    return 50.0 if statistic == "median" else float(statistic.removeprefix("p"))
