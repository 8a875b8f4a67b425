"""Scores as a matrix of models × items, by the job's failure policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.evaluate.statistics.estimates import Floats
from fanout.store.jobs.records import FailurePolicy, ScorerRow

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DroppedItems:
    """Items in no figure of a metric, each counted once, by the first reason that holds for one of the models."""

    unfinished: int = 0
    """A call has not ended."""
    failed: int = 0
    """A model gave no answer, and failures do not count as 0."""
    unscored: int = 0
    """An answer has no score."""

    @property
    def total(self) -> int:
        return self.unfinished + self.failed + self.unscored


@dataclass(frozen=True, slots=True)
class ScoreMatrix:
    """One score an item and model, repeats averaged, of the items that all of these models have."""

    names: Sequence[str]
    scores: Floats
    """Models × items."""
    items: Integers
    """Numbers of the items."""
    dropped: DroppedItems
    left_out: Sequence[str]
    """Models without any score."""
    failures_are_zero: bool
    by_repeat: Sequence[Sequence[float | None]]
    """Of each model, the mean of each repeat."""
    within_variance: Sequence[float | None]
    """Of each model, the mean variance of an item's repeats."""
    is_binary: bool
    """Every repeat's score is 0 or 1."""
    counts: Sequence[tuple[Integers, Integers]]
    """Of each model, repeats and their sum for every item."""


@dataclass(frozen=True, slots=True)
class _ModelScores:
    """One model's repeats, summed up by item."""

    counts: Integers
    sums: Floats
    squares: Floats
    has_unit: NDArray[np.bool_]
    has_answer: NDArray[np.bool_]
    values: Floats
    """By unit; NaN where there is no score."""

    @property
    def means(self) -> Floats:
        # 0 / 0 where an item has no score: NaN is what is wanted, the warning is not.
        with np.errstate(invalid="ignore"):
            return np.asarray(self.sums / self.counts)


def build_matrix(
    measures: JobMeasures, scorer: ScorerRow, policy: FailurePolicy, names: Sequence[str] | None = None
) -> ScoreMatrix:
    """Return the scores of a job's models.

    A failed call counts 0 with `score_zero`, where the scorer's scores lie within 0 … 1 and more is better; for lengths, times
    and costs a 0 would be the best score, so there, and with `drop_item`, an item that a model never answered is left out
    for all. Of a model's repeats of an item, those that have a score count.

    Args:
        measures: of the job.
        scorer: one of its scorers.
        policy: of the job.
        names: only these models; an item that only others lack is kept.
    """
    is_zero = policy == "score_zero" and scorer.is_bounded and scorer.is_higher_better
    models = [model for model in measures.models if names is None or model.name in names]
    reduced = [_reduce(model, scorer.scorer, measures.job.items, is_zero) for model in models]
    scored = [index for index, one in enumerate(reduced) if one.counts.any()]
    kept = [reduced[index] for index in scored]
    # Items that every model has: a mean over items of one's own would compare two questionnaires.
    valid = np.logical_and.reduce([one.counts > 0 for one in kept]) if kept else np.zeros(measures.job.items, dtype=bool)
    items = np.flatnonzero(valid)
    return ScoreMatrix(
        names=[models[index].name for index in scored],
        scores=np.array([one.means[items] for one in kept]).reshape(len(kept), items.size),
        items=items,
        dropped=_count_dropped(kept or reduced, valid, is_zero),
        left_out=[model.name for index, model in enumerate(models) if index not in scored],
        failures_are_zero=is_zero,
        by_repeat=[_average_repeats(models[index], reduced[index], valid) for index in scored],
        within_variance=[_average_variance(one, items) for one in kept],
        # Within 0 … 1 a number equals its square only if it is 0 or 1.
        is_binary=scorer.is_bounded and all(np.allclose(one.squares, one.sums, rtol=0, atol=1e-9) for one in kept),
        counts=[(one.counts[items], np.rint(one.sums[items]).astype(np.int64)) for one in kept],
    )


def _reduce(model: ModelMeasures, scorer: int, count: int, is_zero: bool) -> _ModelScores:
    items = np.asarray(model.items)
    answered = np.asarray(model.answered).astype(bool)
    # NaN for what has no score: sums by item leave it out, and only a count of 0 tells of it.
    values = np.where(answered, np.asarray(model.scores[scorer]), 0.0 if is_zero else np.nan)
    known = np.isfinite(values)
    of_known, found = items[known], values[known]
    return _ModelScores(
        counts=np.bincount(of_known, minlength=count),
        sums=np.bincount(of_known, weights=found, minlength=count).astype(np.float64),
        squares=np.bincount(of_known, weights=found**2, minlength=count).astype(np.float64),
        has_unit=np.bincount(items, minlength=count) > 0,
        has_answer=np.bincount(items[answered], minlength=count) > 0,
        values=values,
    )


def _count_dropped(models: Sequence[_ModelScores], valid: NDArray[np.bool_], is_zero: bool) -> DroppedItems:
    if not models:
        # No call has ended: there is nothing yet that could have failed.
        return DroppedItems(unfinished=valid.size)
    unfinished = ~np.logical_and.reduce([one.has_unit for one in models])
    failed = ~np.logical_and.reduce([one.has_answer for one in models]) & ~unfinished & ~valid
    if is_zero:
        # They have a score, 0, so they are no reason to drop an item.
        failed[:] = False
    unscored = ~valid & ~unfinished & ~failed
    return DroppedItems(int((unfinished & ~valid).sum()), int(failed.sum()), int(unscored.sum()))


def _average_repeats(model: ModelMeasures, scores: _ModelScores, valid: NDArray[np.bool_]) -> list[float | None]:
    repeats = np.asarray(model.repeats)
    used = np.isfinite(scores.values) & valid[np.asarray(model.items)]
    counts = np.bincount(repeats[used])
    sums = np.bincount(repeats[used], weights=scores.values[used])
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def _average_variance(scores: _ModelScores, items: Integers) -> float | None:
    counts, sums, squares = scores.counts[items], scores.sums[items], scores.squares[items]
    several = counts > 1
    if not several.any():
        return None
    n = counts[several]
    variances = (squares[several] - sums[several] ** 2 / n) / (n - 1)
    # Rounding can make the variance of equal scores a hair negative.
    return float(np.clip(variances, 0, None).mean())
