"""Power, shown before a run: how many items a difference needs."""

from __future__ import annotations

from math import sqrt

from scipy import stats

from fanout.evaluate.statistics.estimates import round_up


def required_items(
    difference: float,
    *,
    between_variance: float,
    within_a: float = 0.0,
    within_b: float = 0.0,
    repeats_a: int = 1,
    repeats_b: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """Return the items needed to see a difference: (z₁₋α/₂ + z_power)² · (ω² + σ²_A/K_A + σ²_B/K_B) / δ².

    Args:
        difference: δ, the smallest true difference worth seeing; not 0.
        between_variance: ω², the variance of the true per-item difference.
        within_a: σ²_A, the variance within an item's repeats.
        repeats_a: K_A.

    Raises:
        ValueError: the difference is 0, or an argument is out of its range.
    """
    if not difference or not 0 < alpha < 1 or not 0 < power < 1 or min(repeats_a, repeats_b) < 1:
        raise ValueError("the difference is not 0, alpha and power lie between 0 and 1, repeats are at least 1")
    if min(between_variance, within_a, within_b) < 0:
        raise ValueError("a variance is not negative")
    # The normal: t's degrees of freedom would depend on the number that is sought.
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    variance = between_variance + within_a / repeats_a + within_b / repeats_b
    return max(1, round_up(z**2 * variance / difference**2))


def binary_variance(better: float, worse: float) -> float:
    """Return the variance of a paired 0/1 difference, from the shares of items where A alone and B alone is right."""
    if min(better, worse) < 0 or better + worse > 1:
        raise ValueError(f"shares {better:g} and {worse:g} are not allowed: neither may be negative, nor their sum above 1")
    return better + worse - (better - worse) ** 2


def detectable_difference(n: int, variance: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest difference that n items show with this power."""
    if n < 1 or variance < 0:
        raise ValueError("n is at least 1, a variance is not negative")
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * sqrt(variance / n)
