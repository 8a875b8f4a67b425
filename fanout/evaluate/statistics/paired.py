"""Two models on the same items: differences are always paired, never an overlap of two intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from fanout.evaluate.statistics.estimates import (
    LEVEL,
    MIN_ITEMS,
    Estimate,
    Floats,
    Interval,
    PairedTest,
    is_binary,
    is_constant,
    mean_of,
    to_floats,
    too_few,
)
from fanout.evaluate.statistics.means import standard_error, sum_clusters
from fanout.evaluate.statistics.resampling import describe_sign_flip, sign_flip_p, smallest_sign_flip_p


def compare(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    dropped: int = 0,
) -> PairedTest:
    """Compare two models by the method that their scores call for.

    0/1 scores: Bonett–Price interval and exact McNemar test. Others, and clustered items: paired t interval and sign-flip
    permutation test.

    Args:
        a: scores of model A, one an item, repeats averaged.
        b: scores of model B for the same items in the same order.
        clusters: group of each item, where items of a group hang together.
        dropped: items that one of the two lacks, for the report.

    Raises:
        ValueError: the two have different lengths, or a score is not finite.
    """
    first, second = _pair(a, b)
    # McNemar's test takes items as independent: with clusters, 0/1 scores go the general way, too.
    if clusters is None and first.size and is_binary(first) and is_binary(second):
        better, worse = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
        return compare_binary(better, worse, first.size, level=level, dropped=dropped)
    return compare_continuous(first, second, clusters=clusters, level=level, dropped=dropped)


def compare_binary(better: int, worse: int, n: int, *, level: float = LEVEL, dropped: int = 0) -> PairedTest:
    """Compare two models by their discordant items.

    Sources: Bonett & Price (2012), adjusted Wald interval; McNemar's exact (binomial) test.

    Args:
        better: items where A alone is right.
        worse: items where B alone is right.
        n: all items.
    """
    if min(better, worse) < 0 or better + worse > n:
        raise ValueError(f"{better} and {worse} discordant among {n} items")
    difference = (better - worse) / n if n else None
    if n < MIN_ITEMS:
        estimate = Estimate(difference, None, n, "paired difference of shares", note=too_few(n))
        return PairedTest(estimate, None, "none", dropped=dropped)
    interval = bonett_price(better, worse, n, level=level)
    estimate = Estimate(difference, interval, n, "paired difference of shares, Bonett–Price")
    p_value, smallest = mcnemar_exact(better, worse), smallest_mcnemar_p(better + worse)
    return PairedTest(estimate, p_value, "exact McNemar", smallest, dropped, mcnemar_chi_squares(better, worse))


def bonett_price(better: int, worse: int, n: int, *, level: float = LEVEL, comparisons: int = 1) -> Interval:
    """Return the interval for a paired difference of shares.

    Args:
        comparisons: over how many pairs the level holds at once (Šidák).
    """
    # One is added to either discordant count, or 0 against 0 would have an interval without width.
    p12, p21 = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    difference = p12 - p21
    error = np.sqrt((p12 + p21 - difference**2) / (n + 2))
    half = float(stats.norm.ppf((1 + level ** (1 / comparisons)) / 2) * error)
    return Interval(max(difference - half, -1.0), min(difference + half, 1.0), level)


def mcnemar_exact(better: int, worse: int) -> float:
    """Return the two-sided exact p-value of the discordant items; 1 where there is none."""
    # Items on which both are right, or both wrong, say nothing about which is better.
    discordant = better + worse
    return float(stats.binomtest(better, discordant).pvalue) if discordant else 1.0


def mcnemar_chi_squares(better: int, worse: int) -> tuple[float, float] | None:
    """Return McNemar's statistic without and with Edwards' correction for continuity; `None` where no item is discordant."""
    lead, discordant = abs(better - worse), better + worse
    return (lead**2 / discordant, (lead - 1) ** 2 / discordant) if discordant else None


def smallest_mcnemar_p(discordant: int) -> float:
    """Return the smallest two-sided p-value that so many discordant items could reach."""
    return min(1.0, 2 * 0.5**discordant)


def compare_continuous(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    dropped: int = 0,
) -> PairedTest:
    """Compare two models by a paired t interval and a sign-flip permutation test.

    With clusters, the standard error is clustered and the signs of whole clusters are flipped.
    """
    first, second = _pair(a, b)
    differences = first - second
    n = differences.size
    if n < MIN_ITEMS:
        return PairedTest(
            Estimate(mean_of(differences), None, n, "paired mean", note=too_few(n)), None, "none", dropped=dropped
        )
    mean = float(differences.mean())
    if is_constant(differences):
        note = "every item has the same difference: no interval and no p-value" if mean else "all items are tied"
        return PairedTest(Estimate(mean, None, n, "paired mean", 0.0, note), None, "none", dropped=dropped)
    if clusters is not None and len(set(clusters)) < 2:
        note = "all items are of one cluster: no interval and no p-value"
        return PairedTest(Estimate(mean, None, n, "paired mean, clustered t", note=note), None, "none", dropped=dropped)
    error = standard_error(differences, clusters)
    freedom = (len(set(clusters)) if clusters is not None else n) - 1
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    method = "paired mean, t" if clusters is None else "paired mean, clustered t"
    estimate = Estimate(mean, Interval(mean - half, mean + half, level), n, method, error)
    # Whole clusters are flipped: under the hypothesis their items change sides together.
    flipped = differences if clusters is None else sum_clusters(differences, clusters)
    return PairedTest(estimate, sign_flip_p(flipped), describe_sign_flip(flipped), smallest_sign_flip_p(flipped), dropped)


def _pair(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    first, second = to_floats(a), to_floats(b)
    if first.size != second.size:
        raise ValueError(f"{first.size} scores of A, but {second.size} of B: one an item is needed of each")
    return first, second
