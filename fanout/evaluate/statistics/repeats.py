"""Repeats of an item: reduced to one score an item, and what they say of a model's steadiness."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import comb, isfinite
from statistics import fmean, pvariance, variance


def mean_per_item(rows: Iterable[tuple[Hashable, float | None]]) -> dict[Hashable, float]:
    """Return one score an item: the mean of its repeats that have one.

    Treating repeats as items rejects a true null 25.6 % of the time at α = .05; means of items, 4.5 % (docs/statistics.md).
    """
    scores: dict[Hashable, list[float]] = {}
    for item, score in rows:
        # A repeat without a score is left out here and counted by the report: as 0 it would be a wrong answer nobody gave.
        if score is not None and isfinite(score):
            scores.setdefault(item, []).append(score)
    return {item: fmean(values) for item, values in scores.items()}


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the chance that at least one of k answers is right: 1 − C(n−c, k) / C(n, k).

    Raises:
        ValueError: k is not within 1 and n.
    """
    _check(n, correct, k)
    return 1 - comb(n - correct, k) / comb(n, k)


def pass_hat_k(n: int, correct: int, k: int) -> float:
    """Return the chance that all of k answers are right: C(c, k) / C(n, k).

    Raises:
        ValueError: k is not within 1 and n.
    """
    _check(n, correct, k)
    return comb(correct, k) / comb(n, k)


def _check(n: int, correct: int, k: int) -> None:
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"k = {k}, n = {n}, correct = {correct}: 1 ≤ k ≤ n and 0 ≤ correct ≤ n must hold")


def within_item_variance(repeats: Mapping[Hashable, Sequence[float]]) -> float | None:
    """Return the mean variance of an item's repeats; `None` where no item has two."""
    found = [variance(values) for values in repeats.values() if len(values) > 1]
    return fmean(found) if found else None


def between_item_variance(differences: Sequence[float], noise: float) -> float:
    """Return the variance of the true per-item differences: the observed one less the noise of the means, at least 0."""
    return max(0.0, pvariance(differences) * len(differences) / max(len(differences) - 1, 1) - noise)
