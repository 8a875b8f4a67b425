"""One metric of a report: each model's mean, and every pair's difference on the same items."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fanout.core.threads import while_wanted
from fanout.evaluate.report.matrix import DroppedItems, ScoreMatrix
from fanout.evaluate.statistics.estimates import Estimate, Floats, Interval, PairedTest, clip, combine_notes, join_names
from fanout.evaluate.statistics.many import adjust, describe_rank, rank_bands, simultaneous_intervals
from fanout.evaluate.statistics.means import estimate_clustered_mean, estimate_mean
from fanout.evaluate.statistics.paired import compare
from fanout.evaluate.statistics.repeats import pass_at_k, pass_hat_k
from fanout.store.jobs.records import ScorerRow

GRID = 20
"""Steps of each axis on which pairs of scores are counted, so that a report has a bounded size."""
PASS_KS = (1, 2, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class ModelScore:
    """A model's figures on one metric."""

    model: str
    mean: Estimate
    best_rank: int | None
    """From 1; `None`: the items do not allow a rank."""
    worst_rank: int | None
    verdict: str
    by_repeat: Sequence[float | None]
    within_variance: float | None
    """Mean variance of an item's repeats."""
    passes: Sequence[tuple[int, float, float]]
    """k, pass@k and pass^k, for 0/1 scores with repeats."""


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Model A against model B on one metric."""

    a: str
    b: str
    test: PairedTest
    """Of A − B."""
    adjusted_p: float | None
    """By Holm, over the metric's pairs."""
    simultaneous: Interval | None
    """Holds together with those of all other pairs."""
    wins: int
    """Items on which A is better."""
    ties: int
    losses: int
    grid: Sequence[tuple[float, float, int]]
    """A's score, B's score and the items that have about these."""


@dataclass(frozen=True, slots=True)
class MetricReport:
    """The models compared on one metric."""

    name: str
    version: str
    is_bounded: bool
    is_higher_better: bool
    failures_are_zero: bool
    n: int
    """Items that all models have."""
    dropped: DroppedItems
    models: Sequence[ModelScore]
    """Best mean first."""
    pairs: Sequence[PairComparison]
    """A has the better mean."""
    left_out: Sequence[str]
    verdict: str


def compare_models(matrix: ScoreMatrix, scorer: ScorerRow, clusters: Sequence[Hashable] | None = None) -> MetricReport:
    """Return the comparison of a job's models on one metric.

    Args:
        matrix: the scores.
        scorer: that gave them.
        clusters: group of each of the matrix's items, where items hang together.
    """
    sign = 1 if scorer.is_higher_better else -1
    order = sorted(range(len(matrix.names)), key=lambda index: -sign * _mean(matrix.scores[index]))
    names = [matrix.names[index] for index in order]
    scores = {matrix.names[index]: matrix.scores[index] for index in order}
    intervals = simultaneous_intervals(scores, clusters=clusters) if len(names) > 1 else {}
    goodness = {pair: _flip(interval, sign) for pair, interval in intervals.items()}
    # Turned where less is better, so that rank 1 is the best either way.
    bands = rank_bands({name: sign * _mean(values) for name, values in scores.items()}, goodness)
    is_ranked = any(interval is not None for interval in intervals.values())
    tests = {(a, b): compare(scores[a], scores[b], clusters=clusters) for a, b in while_wanted(combinations(names, 2))}
    # All pairs of the metric are one family: with twelve models, sixty-six looks at .05 find three differences in noise.
    adjusted = _adjust(tests)
    models = [
        ModelScore(
            model=name,
            mean=_estimate(scores[name], clusters, is_bounded=scorer.is_bounded),
            best_rank=bands[name][0] if is_ranked else None,
            worst_rank=bands[name][1] if is_ranked else None,
            verdict=describe_rank(name, bands) if is_ranked else "not ranked",
            by_repeat=matrix.by_repeat[index],
            within_variance=matrix.within_variance[index],
            passes=_measure_passes(matrix, index),
        )
        for name, index in zip(names, order, strict=True)
    ]
    pairs = [
        _describe_pair(pair, test, adjusted.get(pair), intervals.get(pair), scores, sign)
        for pair, test in while_wanted(tests.items())
    ]
    report = MetricReport(
        name=scorer.label,
        version=scorer.version,
        is_bounded=scorer.is_bounded,
        is_higher_better=scorer.is_higher_better,
        failures_are_zero=matrix.failures_are_zero,
        n=matrix.items.size,
        dropped=matrix.dropped,
        models=models,
        pairs=pairs,
        left_out=matrix.left_out,
        verdict="",
    )
    return replace(report, verdict=describe_verdict(report))


def describe_verdict(report: MetricReport) -> str:
    """Return in a sentence or two which model is best, and how sure that is."""
    if not report.models or not report.n:
        return f"{report.name}: no item has a score of every model"
    if len(report.models) == 1:
        return f"{report.name}: {report.models[0].model} {format_estimate(report.models[0].mean)}; nothing to compare it with"
    best = [model.model for model in report.models if model.best_rank == 1]
    # Without intervals nobody has a rank; "best by its mean" would be read as a result.
    if not best:
        note = next((pair.test.difference.note for pair in report.pairs if pair.test.difference.note), "no interval")
        return f"{report.name}: no verdict, because {note}"
    leader, runner_up = report.models[0], report.pairs[0]
    if len(best) == 1:
        ahead = f"it is ahead of {runner_up.b} by {format_difference(runner_up)}"
        return f"{report.name}: {leader.model} is best, {format_estimate(leader.mean)}; {ahead}"
    tied = "all models are tied" if len(best) == len(report.models) else f"{join_names(best)} are tied as best"
    if not runner_up.test.difference.value:
        return f"{report.name}: {tied}; {runner_up.a} and {runner_up.b} have the same mean"
    return f"{report.name}: {tied}; {runner_up.a} is ahead of {runner_up.b} by {format_difference(runner_up)}"


def format_estimate(estimate: Estimate) -> str:
    """Return a figure with its interval, as "0.713 [0.690, 0.735]"."""
    if estimate.value is None:
        return "unknown"
    return f"{estimate.value:.4g}{format_interval(estimate.interval)}"


def format_interval(interval: Interval | None) -> str:
    """Return an interval in brackets, with a space before it; empty if there is none."""
    return f" [{interval.low:.4g}, {interval.high:.4g}]" if interval else ""


def format_difference(pair: PairComparison) -> str:
    """Return the size of a pair's difference, which way it goes being known, with interval and p-value."""
    # The interval that holds together with all others, as the ranks do: beside "tied" one without 0 would be a contradiction.
    return format_lead(replace(pair.test.difference, interval=pair.simultaneous), pair.adjusted_p)


def format_lead(estimate: Estimate, p_value: float | None) -> str:
    """Return the size of a difference, which way it goes being known, with interval and p-value."""
    shown = f"{abs(estimate.value or 0.0):.4g}"
    if estimate.interval:
        # The text names the leader, so the difference is shown as its lead, whatever its sign.
        low, high = sorted((estimate.interval.low, estimate.interval.high))
        turned = (low, high) if (estimate.value or 0.0) >= 0 else (-high, -low)
        shown += f" [{turned[0]:.4g}, {turned[1]:.4g}]"
    return f"{shown} ({format_p(p_value)}, {estimate.n:,} items)"


def format_p(p_value: float | None) -> str:
    """Return a p-value as "p = 0.0312", never as 0."""
    if p_value is None:
        return "no p-value"
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def _estimate(values: Floats, clusters: Sequence[Hashable] | None, *, is_bounded: bool) -> Estimate:
    estimate = estimate_mean(values) if clusters is None else estimate_clustered_mean(values, clusters)
    if estimate.interval is None or not is_bounded:
        return estimate
    # Student's t knows no bounds: "up to 1.04" of a share would be read as a mistake.
    return replace(estimate, interval=clip(estimate.interval, 0.0, 1.0))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _flip(interval: Interval | None, sign: int) -> Interval | None:
    if interval is None or sign > 0:
        return interval
    return Interval(-interval.high, -interval.low, interval.level)


def _adjust(tests: dict[tuple[str, str], PairedTest]) -> dict[tuple[str, str], float]:
    # A pair without a test is no member of the family: counting it would make the others' p-values larger for nothing.
    known = {pair: test.p_value for pair, test in tests.items() if test.p_value is not None}
    return dict(zip(known, adjust(list(known.values())), strict=True))


def _describe_pair(
    pair: tuple[str, str],
    test: PairedTest,
    adjusted: float | None,
    simultaneous: Interval | None,
    scores: dict[str, Floats],
    sign: int,
) -> PairComparison:
    a, b = scores[pair[0]], scores[pair[1]]
    gain = sign * (a - b)
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    grid = _count_grid(a, b)
    return PairComparison(*pair, test, adjusted, simultaneous, wins, gain.size - wins - losses, losses, grid)


def _count_grid(a: Floats, b: Floats) -> list[tuple[float, float, int]]:
    """Return pairs of scores, rounded to a grid between the least and the largest, and how often each occurs."""
    if not a.size:
        return []
    low = float(min(a.min(), b.min()))
    step = (float(max(a.max(), b.max())) - low) / GRID
    if not step:
        return [(low, low, a.size)]
    cells = np.rint((np.column_stack((a, b)) - low) / step).astype(np.int64)
    places, counts = np.unique(cells, axis=0, return_counts=True)
    return [(low + x * step, low + y * step, int(count)) for (x, y), count in zip(places.tolist(), counts, strict=True)]


def _measure_passes(matrix: ScoreMatrix, index: int) -> list[tuple[int, float, float]]:
    """Return pass@k and pass^k over the items, for every usual k up to the fewest repeats of an item."""
    counts, sums = matrix.counts[index]
    # pass@k needs "right" and "wrong"; of a mean score there is no chance that one of k is right.
    if not matrix.is_binary or not counts.size or counts.min() < 2:
        return []
    # A few kinds of items instead of a hundred thousand: binomials of whole numbers are slow.
    kinds, items = np.unique(np.column_stack((counts, sums)), axis=0, return_counts=True)
    found = []
    for k in PASS_KS:
        if k <= counts.min():
            at = sum(pass_at_k(int(n), int(c), k) * int(many) for (n, c), many in zip(kinds, items, strict=True))
            hat = sum(pass_hat_k(int(n), int(c), k) * int(many) for (n, c), many in zip(kinds, items, strict=True))
            found.append((k, float(at / counts.size), float(hat / counts.size)))
    return found


def mark_figures(report: MetricReport, note: str | None) -> MetricReport:
    """Return a metric with a note beside its verdict and every one of its estimates."""
    if note is None:
        return report
    models = [replace(model, mean=mark_estimate(model.mean, note)) for model in report.models]
    pairs = [
        replace(pair, test=replace(pair.test, difference=mark_estimate(pair.test.difference, note))) for pair in report.pairs
    ]
    return replace(report, models=models, pairs=pairs, verdict=f"{report.verdict} ({note})")


def mark_estimate(estimate: Estimate, note: str) -> Estimate:
    """Return an estimate with one more note."""
    return replace(estimate, note=combine_notes(estimate.note, note))
