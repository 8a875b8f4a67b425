"""How much later than they were sent calls may arrive upstream, which counts them by its own clock."""

from __future__ import annotations

MARGIN_S = 1e-4
"""Added to every wait: an entry leaves its window when it is older than the period, not as old."""
MAX_ARRIVAL_SKEW_S = 0.25
"""How far apart calls may arrive upstream that were sent together: about the time of one lost packet."""
MAX_SKEW_RATIO = 0.01
"""The part of a short period that may be given up for the skew."""


def add_skew(period_s: float) -> float:
    """Return the period for which a call is counted here, so that late arrivals do not meet those of the next."""
    return period_s + min(MAX_ARRIVAL_SKEW_S, period_s * MAX_SKEW_RATIO)
