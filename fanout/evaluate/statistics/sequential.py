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
CANDIDATES = 100
"""Means on either side that an interval is made of: each is five to ten per cent further out than the one before."""


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


def mixture_path(wins: Counts, losses: Counts, prior: float = PRIOR) -> Floats:
    """Return the e-value against equal chances after each count of discordant pairs: 2^(w+l) · B(a+w, a+l) / B(a, a).

    Args:
        prior: a; 1 is the uniform one.
    """
    logs = (wins + losses) * np.log(2.0) + betaln(prior + wins, prior + losses) - betaln(prior, prior)
    return np.asarray(np.exp(np.minimum(logs, MAX_LOG)), dtype=np.float64)


def evidence_path(differences: Sequence[float] | Floats) -> Floats:
    """Return the e-value against "no difference" after each item.

    0/1 scores (differences −1, 0, 1): the mixture over discordant pairs. Others within −1 … 1: hedged betting.
    """
    values = _bounded(differences)
    # Ties drop out of the mixture, so it decides sooner where models mostly agree.
    if is_binary(np.abs(values)):
        return mixture_path(np.cumsum(values > 0), np.cumsum(values < 0))
    return betting_path((values + 1) / 2, 0.5)


def betting_path(
    values: Floats, mean: float, *, side: Literal["both", "above", "below"] = "both", alpha: float = 0.05
) -> Floats:
    """Return the capital of betting against "the mean is `mean`" after each value within 0 … 1.

    Args:
        side: "above" gains if the true mean is larger, "below" if it is smaller; "both" splits the stake.
    """
    return np.asarray(np.exp(np.minimum(_log_capital(values, mean, side, _choose_bets(values, alpha)), MAX_LOG)))


def _choose_bets(values: Floats, alpha: float) -> Floats:
    """Return the size of each bet, from what was seen before it."""
    steps = np.arange(1, values.size + 1)
    means = (0.5 + np.cumsum(values)) / (steps + 1)
    # Starts as if a half had been seen with the largest spread: the first bets are small, whatever comes first.
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (steps + 1)
    # A bet may use only what was seen before it, or the capital would no longer be evidence.
    before = np.concatenate(([0.25], variances[:-1]))[: values.size]
    return np.asarray(np.sqrt(2 * np.log(2 / alpha) / (before * steps * np.log(steps + 1))))


def _log_capital(values: Floats, mean: float, side: Literal["both", "above", "below"], bets: Floats) -> Floats:
    if side == "both":
        above, below = (_log_capital(values, mean, one, bets) for one in ("above", "below"))
        return np.asarray(np.logaddexp(above, below) - np.log(2.0))
    sign = 1 if side == "above" else -1
    cap = BET_CAP / (mean if sign > 0 else 1 - mean) if 0 < mean < 1 else BET_CAP
    return np.asarray(np.cumsum(np.log1p(sign * np.minimum(bets, cap) * (values - mean))))


def confidence_path(differences: Sequence[float] | Floats, *, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Return the bounds of an interval for the mean difference after each item; the interval holds at every look.

    It has the means that no bet has refuted by then, and never becomes wider.
    """
    values = (_bounded(differences) + 1) / 2
    if not values.size:
        return np.empty(0), np.empty(0)
    bets, threshold = _choose_bets(values, alpha), np.log(1 / alpha)
    candidates = _list_candidates(float(values.mean()), values.size)
    refuted = np.array([_first_or_never(_log_capital(values, float(mean), "both", bets) >= threshold) for mean in candidates])
    places = np.arange(candidates.size)
    # After item t those are left that fall later: the smallest and the largest of each t, from its end backwards.
    least, most = np.full(values.size + 1, candidates.size), np.full(values.size + 1, -1)
    np.minimum.at(least, refuted, places)
    np.maximum.at(most, refuted, places)
    low = np.minimum.accumulate(least[::-1])[::-1][1:]
    high = np.maximum.accumulate(most[::-1])[::-1][1:]
    # The true bounds lie between a candidate that is left and the next one further out.
    return 2 * candidates[np.maximum(low - 1, 0)] - 1, 2 * candidates[np.minimum(high + 1, candidates.size - 1)] - 1


def _list_candidates(centre: float, n: int) -> Floats:
    """Return means within 0 … 1, the denser the nearer to the centre: the interval ends near it."""
    offsets = np.geomspace(0.02 / np.sqrt(n), 1, CANDIDATES)
    # The centre is never refuted by what it is the mean of, but for rounding: without it an interval could be empty.
    return np.unique(np.clip(np.concatenate((centre - offsets, [0.0, centre, 1.0], centre + offsets)), 0, 1))


def _first_or_never(reached: NDArrayBool) -> int:
    return int(np.argmax(reached)) if reached.any() else reached.size


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
