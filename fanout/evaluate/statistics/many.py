"""More than two models: adjusted p-values, simultaneous intervals, rank bands."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from fanout.evaluate.statistics.estimates import LEVEL, MIN_ITEMS, Floats, Interval, is_binary, is_constant, to_floats
from fanout.evaluate.statistics.means import standard_error
from fanout.evaluate.statistics.paired import bonett_price

Adjustment = Literal["holm", "benjamini_hochberg"]
"""Of p-values: against any false alarm at all, or for the share of false ones among the alarms."""


def adjust(p_values: Sequence[float], method: Adjustment = "holm") -> list[float]:
    """Return p-values adjusted for their number, in their order.

    Not by statsmodels, whose `multipletests` collects garbage at each call: that holds up a whole server.
    """
    values = to_floats(p_values)
    order = np.argsort(values, kind="stable")
    # Monotone: without it a larger p-value could become the smaller one after its adjustment.
    if method == "holm":
        sorted_ = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    else:
        sorted_ = np.minimum.accumulate((values[order] * values.size / np.arange(1, values.size + 1))[::-1])[::-1]
    adjusted = np.empty(values.size)
    adjusted[order] = np.minimum(sorted_, 1.0)
    return [float(value) for value in adjusted]


def simultaneous_intervals(
    scores: Mapping[str, Sequence[float] | Floats],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> dict[tuple[str, str], Interval | None]:
    """Return an interval for each pair's difference, all of which hold at once with `level` (Šidák).

    Args:
        scores: by model, one an item, the same items in the same order.
        clusters: group of each item, where items of a group hang together.

    Returns:
        By (a, b) in the order of `scores`, for a − b; `None` where an interval cannot be given.
    """
    arrays = {name: to_floats(values) for name, values in scores.items()}
    pairs = list(combinations(arrays, 2))
    return {(a, b): _interval(arrays[a], arrays[b], clusters, len(pairs), level) for a, b in pairs}


def _interval(a: Floats, b: Floats, clusters: Sequence[Hashable] | None, comparisons: int, level: float) -> Interval | None:
    # Degrees of freedom come from clusters: a hundred questions about two documents are two observations.
    groups = a.size if clusters is None else len(set(clusters))
    if a.size < MIN_ITEMS or groups < 2:
        return None
    if clusters is None and is_binary(a) and is_binary(b):
        better, worse = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
        return bonett_price(better, worse, a.size, level=level, comparisons=comparisons)
    differences = a - b
    if is_constant(differences):
        return None
    half = float(stats.t.ppf((1 + level ** (1 / comparisons)) / 2, groups - 1)) * standard_error(differences, clusters)
    return Interval(float(differences.mean()) - half, float(differences.mean()) + half, level)


def rank_bands(means: Mapping[str, float], intervals: Mapping[tuple[str, str], Interval | None]) -> dict[str, tuple[int, int]]:
    """Return each model's best and worst rank that the simultaneous intervals allow, from 1.

    A model's best rank is 1 + the models that are surely better; its worst, the number of models − those surely worse.
    Models whose bands overlap are not separated.
    """
    better: dict[str, set[str]] = {name: set() for name in means}
    for (a, b), interval in intervals.items():
        if interval is None:
            continue
        # Zero within the interval separates nobody: ranks by mean alone would be read as a difference.
        if interval.low > 0:
            better[b].add(a)
        elif interval.high < 0:
            better[a].add(b)
    worse = {name: sum(name in others for others in better.values()) for name in means}
    return {name: (1 + len(better[name]), len(means) - worse[name]) for name in means}


def describe_rank(name: str, bands: Mapping[str, tuple[int, int]]) -> str:
    """Return a model's rank in words, as "tied with 2 others as best"."""
    best, worst = bands[name]
    if best == worst:
        return "best" if best == 1 else "worst" if best == len(bands) else f"rank {best}"
    # Overlapping bands are no tie: of A surely above C, and B apart from neither, A and C both may have rank 2. But of those
    # that may be the best none is surely better than another, and likewise at the end.
    if best != 1 and worst != len(bands):
        return f"rank {best} to {worst}"
    tied = sum(band[0] == 1 if best == 1 else band[1] == worst for band in bands.values()) - 1
    return f"tied with {tied} other{'s' if tied != 1 else ''} as {'best' if best == 1 else 'worst'}"
