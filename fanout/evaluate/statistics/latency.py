"""Latency of answers: percentiles of successes, their differences, and the time for each token of a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanout.evaluate.statistics.estimates import Estimate, Floats, to_floats
from fanout.evaluate.statistics.resampling import bootstrap_percentiles


def time_per_token(ttft: Floats, e2e: Floats, output_tokens: Floats) -> Floats:
    """Return (e2e − ttft) / (output tokens − 1) of each answer; NaN where one of them is unknown, or below two tokens."""
    # The first token's time is `ttft`; counted here too, it would hide how fast the rest came.
    later = np.where(output_tokens > 1, output_tokens - 1, np.nan)
    return np.asarray((e2e - ttft) / later)


def percentiles(values: Sequence[float] | Floats, wanted: Sequence[float] = (50, 95)) -> dict[float, float | None]:
    """Return percentiles by linear interpolation; `None` each where there is no value."""
    array = to_floats(values)
    return {percentile: float(np.percentile(array, percentile)) if array.size else None for percentile in wanted}


def compare_latency(
    a: Sequence[float] | Floats, b: Sequence[float] | Floats, statistics: Sequence[str] = ("median", "p95")
) -> list[Estimate]:
    """Return the differences A − B of percentiles by paired bootstrap over the items that both answered."""
    return bootstrap_percentiles(a, b, statistics)
