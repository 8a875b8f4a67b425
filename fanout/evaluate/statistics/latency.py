"""Latency of answers: percentiles of successes, their differences, and the parts of a stream's time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fanout.evaluate.statistics.estimates import Estimate, Floats, to_floats
from fanout.evaluate.statistics.resampling import bootstrap_percentiles


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """Parts of a streamed answer's time, in the unit of the arrivals."""

    ttft: float
    """Time to first content."""
    e2e: float
    """Start to last chunk."""
    tpot: float | None
    """Time per output token after the first; `None` below two tokens."""
    itl: tuple[float, ...]
    """Gaps between chunks."""


def measure_stream(arrivals: Sequence[float], output_tokens: int | None, *, start: float = 0.0) -> StreamTiming:
    """Return the parts of a stream's time.

    Args:
        arrivals: of the chunks with content, in order.
        output_tokens: of the whole answer; `None`: not known.
        start: of the call.

    Raises:
        ValueError: nothing arrived.
    """
    if not arrivals:
        raise ValueError("no chunk arrived")
    ttft, e2e = arrivals[0] - start, arrivals[-1] - start
    # The first token's time is `ttft`; counted here too, it would hide how fast the rest came.
    tpot = (e2e - ttft) / (output_tokens - 1) if output_tokens is not None and output_tokens > 1 else None
    return StreamTiming(ttft, e2e, tpot, tuple(float(gap) for gap in np.diff(arrivals)))


def percentiles(values: Sequence[float] | Floats, wanted: Sequence[float] = (50, 95)) -> dict[float, float | None]:
    """Return percentiles by linear interpolation; `None` each where there is no value."""
    array = to_floats(values)
    return {percentile: float(np.percentile(array, percentile)) if array.size else None for percentile in wanted}


def compare_latency(
    a: Sequence[float] | Floats, b: Sequence[float] | Floats, statistics: Sequence[str] = ("median", "p95")
) -> list[Estimate]:
    """Return the differences A − B of percentiles by paired bootstrap over the items that both answered."""
    return bootstrap_percentiles(a, b, statistics)
