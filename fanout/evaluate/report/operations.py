"""Cost, times and failures of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fanout.evaluate.report.measures import ModelMeasures
from fanout.evaluate.statistics.estimates import Estimate, Floats
from fanout.evaluate.statistics.latency import compare_latency, percentiles, time_per_token
from fanout.evaluate.statistics.means import estimate_continuous_mean

BOX = (5.0, 25.0, 50.0, 75.0, 95.0)
"""Percentiles of a box plot with its whiskers."""
MAX_LATENCY_PAIRS = 66
"""Pairs whose latencies are resampled: those of twelve models."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Percentiles of a duration over answers, in seconds."""

    n: int
    """Answers of which it was measured."""
    percentiles: Mapping[float, float | None]
    """Those of `BOX`."""


@dataclass(frozen=True, slots=True)
class ModelOperations:
    """A model's calls, their cost and their times. Times are those of answers alone."""

    ended: int
    answered: int
    failures: Mapping[str, int]
    """By kind."""
    reused: int
    """Answers that came from other jobs."""
    cost_usd: float | None
    """Sum of the known costs; `None`: none is known."""
    cost_unknown: int
    cost_per_1000: Estimate
    """US dollars for 1,000 items, one answer each."""
    cached_share: float | None
    """Share of the input that came from the provider's cache; `None`: the provider does not say."""
    queued: Duration
    """Waiting for the limits set here: never the model's own time."""
    ttft: Duration
    tpot: Duration
    """Time for each output token after the first, by answer."""
    call: Duration
    """The successful attempt alone."""
    total: Duration
    """Everything, queue and retries included."""
    tokens_per_second: float | None
    """Output tokens by the time of the successful attempts, over all answers."""


@dataclass(frozen=True, slots=True)
class LatencyPair:
    """Differences A − B of the time of the successful attempt, in seconds, over the items that both answered."""

    a: str
    b: str
    median: Estimate
    p95: Estimate


def measure_operations(model: ModelMeasures) -> ModelOperations:
    """Return a model's figures."""
    answered = np.asarray(model.answered).astype(bool)
    costs, calls, tokens = np.asarray(model.cost_usd), np.asarray(model.call_s), np.asarray(model.output_tokens)
    priced = np.isfinite(costs)
    timed = np.isfinite(calls) & np.isfinite(tokens)
    seconds = float(calls[timed].sum())
    return ModelOperations(
        ended=answered.size,
        answered=int(answered.sum()),
        failures=dict(model.failures.most_common()),
        reused=model.reused,
        cost_usd=float(costs[priced].sum()) if priced.any() else None,
        # Failed calls have no price to miss.
        cost_unknown=int((answered & ~priced).sum()),
        cost_per_1000=_estimate_cost(model, costs),
        cached_share=model.cached_tokens / model.input_tokens if model.input_tokens else None,
        # Of answers, as the other times are: failures often end at once, and would make a model look fast.
        queued=_measure(np.asarray(model.queued_s)[answered]),
        ttft=_measure(np.asarray(model.ttft_s)),
        tpot=_measure(time_per_token(np.asarray(model.ttft_s), calls, tokens)),
        call=_measure(calls),
        total=_measure(np.asarray(model.total_s)),
        # Sum by sum, not the mean of rates: short answers would count as much as long ones.
        tokens_per_second=float(tokens[timed].sum()) / seconds if seconds else None,
    )


def _measure(values: Floats) -> Duration:
    known = values[np.isfinite(values)]
    return Duration(known.size, percentiles(known, BOX))


def _estimate_cost(model: ModelMeasures, costs: Floats) -> Estimate:
    means = average_by_item(model, costs)
    return estimate_continuous_mean(1_000 * means[np.isfinite(means)])


def average_by_item(model: ModelMeasures, values: Floats) -> Floats:
    """Return the mean of each item's known values; NaN where there is none."""
    items = np.asarray(model.items)
    if not items.size:
        return np.empty(0)
    known = np.isfinite(values)
    count = int(items.max()) + 1
    counts = np.bincount(items[known], minlength=count)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(items[known], weights=values[known], minlength=count) / counts)


def compare_latencies(models: Sequence[ModelMeasures]) -> list[LatencyPair]:
    """Return the differences of every pair's median and 95th percentile."""
    times = {model.name: average_by_item(model, np.asarray(model.call_s)) for model in models}
    # Each pair takes 1,999 resamples: a report must not take minutes.
    pairs = list(combinations(times, 2))[:MAX_LATENCY_PAIRS]
    return [_compare(a, b, times[a], times[b]) for a, b in pairs]


def _compare(name_a: str, name_b: str, a: Floats, b: Floats) -> LatencyPair:
    # Columns end with the last item that has ended, which need not be the same one.
    count = min(a.size, b.size)
    both = np.isfinite(a[:count]) & np.isfinite(b[:count])
    first, second = a[:count][both], b[:count][both]
    median, p95 = compare_latency(first, second)
    return LatencyPair(name_a, name_b, median, p95)
