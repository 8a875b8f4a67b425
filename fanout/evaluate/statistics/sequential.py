"""Looking while a job runs: e-processes that hold at every look, and the rule that stops when the answer is known.

Conditions without which none of this holds: items run in a recorded random order, only the complete prefix of that order is
looked at, and the failure policy is fixed before the run. Sources: mixture e-process on discordant pairs (Beta prior ½, ½);
hedged betting, Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betaln

from fanout.evaluate.statistics.estimates import Floats, is_binary, to_floats

NDArrayBool = np.ndarray[tuple[int], np.dtype[np.bool_]]
Counts = np.ndarray[tuple[int], np.dtype[np.int64]]
State = Literal["undecided", "difference", "equivalence", "futility", "budget"]
PRIOR = 0.5
MAX_LOG = 700.0
"""e^700 is near the largest float; larger capital decides no more."""
BET_CAP = 0.5
"""Largest share of the capital at risk in one bet, so that no single item ruins a process."""


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """When to stop; fixed before the run and stored with it."""

    alpha: float = 0.05
    margin: float | None = None
    """Half-width of "equal for our purposes"; `None`: equivalence is not looked for."""
    max_items: int | None = None
    """Items that there are, or that the budget pays; `None`: open."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or (self.margin is not None and not 0 < self.margin < 1):
            raise ValueError(f"alpha {self.alpha} and margin {self.margin} must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Decision:
    """State of a pair after the prefix."""

    state: State
    n: int
    """Items of the complete prefix at which the state was reached."""
    mean: float | None
    evidence: float
    """Largest e-value against "no difference" so far; 1 / alpha decides."""
    sentence: str


def mixture_e_value(wins: int, losses: int, *, a: float = PRIOR, b: float = PRIOR) -> float:
    """Return the e-value of discordant pairs against equal chances: 2^(w+l) · B(a+w, b+l) / B(a, b)."""
    return float(np.exp(_log_mixture(np.array([wins]), np.array([losses]), a, b)[0]))


def _log_mixture(wins: Counts, losses: Counts, a: float = PRIOR, b: float = PRIOR) -> Floats:
    total = wins + losses
    logs: Floats = np.asarray(total * np.log(2.0) + betaln(a + wins, b + losses) - betaln(a, b), dtype=np.float64)
    return logs


def evidence_path(differences: Sequence[float] | Floats) -> Floats:
    """Return the e-value against "no difference" after each item.

    0/1 scores (differences −1, 0, 1): the mixture over discordant pairs. Others within −1 … 1: hedged betting.
    """
    values = _bounded(differences)
    # Ties drop out of the mixture, so it decides sooner where models mostly agree.
    if is_binary(np.abs(values)):
        return np.asarray(np.exp(np.minimum(_log_mixture(np.cumsum(values > 0), np.cumsum(values < 0)), MAX_LOG)))
    return betting_path((values + 1) / 2, 0.5)


def betting_path(
    values: Floats, mean: float, *, side: Literal["both", "above", "below"] = "both", alpha: float = 0.05
) -> Floats:
    """Return the capital of betting against "the mean is `mean`" after each value within 0 … 1.

    Args:
        side: "above" gains if the true mean is larger, "below" if it is smaller; "both" splits the stake.
    """
    logs = {"above": _log_capital(values, mean, 1, alpha), "below": _log_capital(values, mean, -1, alpha)}
    logs["both"] = np.logaddexp(logs["above"], logs["below"]) - np.log(2.0)
    return np.asarray(np.exp(np.minimum(logs[side], MAX_LOG)))


def _log_capital(values: Floats, mean: float, sign: int, alpha: float) -> Floats:
    """Return the log of the capital; each bet is made from what was seen before it."""
    if not values.size:
        return np.empty(0)
    steps = np.arange(1, values.size + 1)
    means = (0.5 + np.cumsum(values)) / (steps + 1)
    # Starts as if a half had been seen with the largest spread: the first bets are small, whatever comes first.
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (steps + 1)
    # A bet may use only what was seen before it, or the capital would no longer be evidence.
    before = np.concatenate(([0.25], variances[:-1]))
    bets = np.sqrt(2 * np.log(2 / alpha) / (before * steps * np.log(steps + 1)))
    cap = BET_CAP / (mean if sign > 0 else 1 - mean) if 0 < mean < 1 else BET_CAP
    return np.asarray(np.cumsum(np.log1p(sign * np.minimum(bets, cap) * (values - mean))))


def confidence_sequence(differences: Sequence[float] | Floats, *, level: float = 0.95, grid: int = 401) -> tuple[float, float]:
    """Return an interval for the mean difference that holds at every look: the means that no bet has refuted so far."""
    values = (_bounded(differences) + 1) / 2
    if not values.size:
        return -1.0, 1.0
    candidates = np.linspace(0, 1, grid)
    kept = [mean for mean in candidates if betting_path(values, float(mean)).max() < 1 / (1 - level)]
    if not kept:
        return float(2 * values.mean() - 1), float(2 * values.mean() - 1)
    step = 1 / (grid - 1)  # the true bounds lie up to one step of the grid further out
    return float(max(2 * (min(kept) - step) - 1, -1)), float(min(2 * (max(kept) + step) - 1, 1))


def decide(differences: Sequence[float] | Floats, rule: StoppingRule, *, checks_futility: bool = True) -> Decision:
    """Return what the complete prefix shows, and after which of its items that was known.

    Args:
        differences: A − B within −1 … 1, one an item, in the recorded order, no item left out.
        rule: fixed before the run.
        checks_futility: whether to look, at some cost, if the items that remain could still decide anything.

    Raises:
        ValueError: a difference is outside −1 … 1 or not finite.
    """
    values = _bounded(differences)
    # Items beyond the budget were not promised: looking at them would be a second look that no alpha paid for.
    if rule.max_items is not None:
        values = values[: rule.max_items]
    evidence = evidence_path(values)
    known = _first(evidence >= 1 / rule.alpha)
    equal = _first(_equivalence(values, rule)) if rule.margin is not None else None
    # Whichever was known first: deciding by the later one would be a choice made after seeing the data.
    if known is not None and (equal is None or known <= equal):
        return _decision("difference", values, evidence, known, rule)
    if equal is not None:
        return _decision("equivalence", values, evidence, equal, rule)
    if rule.max_items is not None and values.size >= rule.max_items:
        return _decision("budget", values, evidence, values.size - 1, rule)
    state: State = "futility" if checks_futility and is_futile(values, rule) else "undecided"
    return _decision(state, values, evidence, values.size - 1, rule)


def _equivalence(values: Floats, rule: StoppingRule) -> NDArrayBool:
    """Return after which items both "better by the margin" and "worse by the margin" are refuted, each at alpha."""
    assert rule.margin is not None
    scaled = (values + 1) / 2
    # The greatest so far counts: an e-process that has once refuted stays valid evidence.
    upper = np.maximum.accumulate(betting_path(scaled, (1 + rule.margin) / 2, side="below", alpha=rule.alpha))
    lower = np.maximum.accumulate(betting_path(scaled, (1 - rule.margin) / 2, side="above", alpha=rule.alpha))
    return np.asarray(np.minimum(upper, lower) >= 1 / rule.alpha)


def is_futile(values: Floats, rule: StoppingRule) -> bool:
    """Return whether even the most favourable rest of the budget could decide nothing.

    The rest is taken as all wins, as all losses and, for equivalence, as all ties. Stopping so raises no false alarm.
    """
    if rule.max_items is None or not values.size or values.size >= rule.max_items:
        return False
    rest = rule.max_items - values.size
    # The extreme rests. For scores between 0 and 1 a mixed rest may prove a little more, so this may stop a hair too early.
    for fill in (1.0, -1.0, 0.0):
        whole = np.concatenate((values, np.full(rest, fill)))
        if (evidence_path(whole) >= 1 / rule.alpha).any():
            return False
        if rule.margin is not None and _equivalence(whole, rule).any():
            return False
    return True


def _first(reached: NDArrayBool) -> int | None:
    return int(np.argmax(reached)) if reached.any() else None


def _decision(state: State, values: Floats, evidence: Floats, at: int, rule: StoppingRule) -> Decision:
    n = at + 1
    mean = float(values[:n].mean()) if n else None
    strength = float(evidence[:n].max()) if n else 1.0
    shown = f"mean difference {mean:+.3f} after {n} items" if mean is not None else "no item yet"
    sentences: dict[State, str] = {
        "undecided": f"undecided: {shown}, evidence {strength:.3g} of {1 / rule.alpha:.3g}",
        "difference": f"different: {shown}, evidence {strength:.3g}",
        "equivalence": f"equal within ±{rule.margin}: {shown}",
        "futility": f"futile: {shown}; the items that remain cannot decide",
        "budget": f"undecided at the end of the budget: {shown}, evidence {strength:.3g} of {1 / rule.alpha:.3g}",
    }
    return Decision(state, n, mean, strength, sentences[state])


def _bounded(differences: Sequence[float] | Floats) -> Floats:
    values = to_floats(differences)
    if values.size and np.abs(values).max() > 1:
        raise ValueError(
            f"a difference of {values[np.abs(values).argmax()]} is outside −1 … 1; scale the scores to 0 … 1 first"
        )
    return values
