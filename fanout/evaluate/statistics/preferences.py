"""Win rates from judged or voted pairs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fanout.evaluate.statistics.estimates import LEVEL, MIN_ITEMS, Estimate, Interval, is_constant, too_few
from fanout.evaluate.statistics.means import wilson_interval
from fanout.evaluate.statistics.resampling import RESAMPLES, SEED

Verdict = Literal["a", "b", "tie", "both_bad"]
"""Who is better. `both_bad` counts as a tie in every rate, and is counted on its own besides."""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """One judged pair on one prompt; `winner` is `None` where the verdict could not be read."""

    prompt: Hashable
    a: str
    b: str
    winner: Verdict | None


@dataclass(frozen=True, slots=True)
class WinRate:
    """Share of wins of A against B, ties counted half."""

    rate: Estimate
    wins: int
    losses: int
    ties: int
    errors: int
    """Verdicts that could not be read; they are in no figure."""


def combine_orders(first: Verdict | None, second: Verdict | None) -> Verdict | None:
    """Return the verdict of a pair that was judged in both orders: a win only where both agree, else a tie.

    Args:
        first: with A shown first, in terms of the models.
        second: with B shown first, in terms of the models too.
    """
    # Half a pair is no verdict: its one order may be the one that the judge favours.
    if first is None or second is None:
        return None
    # A verdict that turns with the order is the place's, not the answer's.
    return first if first == second else "tie"


def position_consistency(pairs: Sequence[tuple[Verdict | None, Verdict | None]]) -> float | None:
    """Return the share of pairs, judged in both orders, whose verdicts agree; `None` where no pair has both."""
    read = [(first, second) for first, second in pairs if first is not None and second is not None]
    return sum(first == second for first, second in read) / len(read) if read else None


def win_rate(comparisons: Sequence[JudgedPair], a: str, b: str, *, level: float = LEVEL, resamples: int = RESAMPLES) -> WinRate:
    """Return the win rate of A against B: (wins + ½ ties) / n, with a bootstrap interval over prompts.

    Args:
        comparisons: of any models, in either order; those of A and B count.
    """
    scores: list[tuple[Hashable, float]] = []
    wins = losses = ties = errors = 0
    for comparison in comparisons:
        if {comparison.a, comparison.b} != {a, b}:
            continue
        # A verdict that could not be read is no tie: counting it as one would pull every rate towards a half.
        if comparison.winner is None:
            errors += 1
            continue
        if comparison.winner in ("tie", "both_bad"):
            ties += 1
            scores.append((comparison.prompt, 0.5))
            continue
        won = (comparison.winner == "a") == (comparison.a == a)
        wins, losses = wins + won, losses + (not won)
        scores.append((comparison.prompt, float(won)))
    return WinRate(_rate(scores, level, resamples), wins, losses, ties, errors)


def _rate(scores: Sequence[tuple[Hashable, float]], level: float, resamples: int) -> Estimate:
    """Return the mean score; whole prompts are drawn, because verdicts on one prompt hang together."""
    sums: dict[Hashable, tuple[float, int]] = {}
    for prompt, score in scores:
        total, count = sums.get(prompt, (0.0, 0))
        sums[prompt] = (total + score, count + 1)
    prompts = len(sums)
    if not prompts:
        return Estimate(None, None, 0, "win rate", note="no pair was judged")
    totals, counts = np.array(list(sums.values()), dtype=np.float64).T
    value = float(totals.sum() / counts.sum())
    if prompts < MIN_ITEMS:
        return Estimate(value, None, prompts, "win rate", note=too_few(prompts))
    # Nothing to draw from, but as many wins without a loss say much all the same: the share of prompts, by Wilson.
    if is_constant(totals / counts) and value in (0.0, 1.0):
        low, high = wilson_interval(int(value) * prompts, prompts, level=level)
        return Estimate(value, Interval(low, high, level), prompts, "win rate, Wilson over prompts")
    if is_constant(totals / counts):
        return Estimate(value, None, prompts, "win rate", note="all prompts have the same verdict: the bootstrap has no spread")
    generator = np.random.default_rng(SEED)
    rates = np.empty(resamples)
    for index in range(resamples):
        # One draw at a time: all of them at once would be prompts × 9,999 numbers in memory.
        drawn = generator.integers(prompts, size=prompts)
        rates[index] = totals[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, Interval(float(low), float(high), level), prompts, "win rate, bootstrap over prompts")


def length_effect(length_differences: Sequence[float], scores: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean length difference A − B and its correlation with A's score (1 win, ½ tie, 0 loss).

    The correlation is `None` where either does not vary or there are fewer than 15 pairs.
    """
    lengths, wins = np.asarray(length_differences, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not lengths.size:
        return None, None
    varies = lengths.size >= MIN_ITEMS and lengths.std() > 0 and wins.std() > 0
    return float(lengths.mean()), float(np.corrcoef(lengths, wins)[0, 1]) if varies else None
