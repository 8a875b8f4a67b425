"""Non-inferiority, for a gate or a replacement: is the candidate at most a margin worse?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fanout.evaluate.statistics.estimates import LEVEL, MIN_ITEMS, Interval, PairedTest

GateState = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict and the sentence that explains it."""

    state: GateState
    sentence: str


def judge_noninferiority(test: PairedTest, margin: float) -> GateVerdict:
    """Return pass (lower bound > −margin), fail (upper bound < −margin) or inconclusive (neither).

    Args:
        test: candidate − baseline.
        margin: fixed before the run, in the unit of the score.

    Raises:
        ValueError: the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"margin {margin} is negative")
    estimate = test.difference
    # Too little data never passes a gate: absence of evidence is not evidence of equality.
    if estimate.interval is None:
        return GateVerdict("inconclusive", f"inconclusive: {estimate.note or 'no interval'}")
    low, high = estimate.interval.low, estimate.interval.high
    shown = f"the difference is {estimate.value:+.4f} [{low:+.4f}, {high:+.4f}] over {estimate.n} items, margin {margin:g}"
    if low > -margin:
        return GateVerdict("pass", f"pass: {shown}; the candidate is at most the margin worse")
    if high < -margin:
        return GateVerdict("fail", f"fail: {shown}; the candidate is worse by more than the margin")
    return GateVerdict("inconclusive", f"inconclusive: {shown}; more items would tell")


def bound_ties(test: PairedTest, *, level: float = LEVEL) -> PairedTest:
    """Return the test with an interval where all items are tied, for scores within 0 … 1; else the test as it is.

    If a share π of all items differed, none of n would with probability (1 − π)ⁿ. The largest π that this leaves above
    (1 − level)/2 bounds the mean difference, because no item differs by more than 1. Source: Clopper & Pearson (1934).
    """
    estimate = test.difference
    # Without it a candidate that answers as the baseline does, word for word, could never pass a gate.
    if estimate.interval is not None or estimate.value != 0 or estimate.n < MIN_ITEMS:
        return test
    share = 1 - ((1 - level) / 2) ** (1 / estimate.n)
    method = "all items tied: exact bound on the share that differs"
    bounded = replace(estimate, interval=Interval(-share, share, level), method=method, note=None)
    return replace(test, difference=bounded)
