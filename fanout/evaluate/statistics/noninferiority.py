"""Non-inferiority, for a gate or a replacement: is the candidate at most a margin worse?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fanout.evaluate.statistics.estimates import PairedTest

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
