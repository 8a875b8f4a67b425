"""Repeats of an item: what they say of a model's steadiness."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import pvariance


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


def between_item_variance(differences: Sequence[float], noise: float) -> float:
    """Return the variance of the true per-item differences: the observed one less the noise of the means, at least 0."""
    return max(0.0, pvariance(differences) * len(differences) / max(len(differences) - 1, 1) - noise)
