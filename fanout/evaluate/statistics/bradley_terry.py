"""Ratings of three or more models from pairs: Bradley–Terry by maximum likelihood, ties counted half."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import evalica
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse.csgraph import connected_components

from fanout.evaluate.statistics.estimates import LEVEL, MIN_ITEMS, Interval, combine_notes, too_few
from fanout.evaluate.statistics.preferences import JudgedPair

CENTRE, SCALE = 1000.0, 400 / math.log(10)
"""Of ratings: 1000 + (400 / ln 10) · β, β mean-centred; 400 points are odds of 10 to 1."""
RIDGE = 0.01
"""Of a tie's weight, between every pair, added only where a model has nothing but wins or losses and would diverge."""
TOLERANCE, ITERATIONS = 1e-10, 10_000


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's rating."""

    model: str
    rating: float | None
    interval: Interval | None
    strength: float | None
    """Bradley–Terry score; all of them sum to 1."""
    comparisons: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ratings, best first, and what limits them."""

    ratings: tuple[Rating, ...]
    n: int
    errors: int
    method: str = "Bradley–Terry, ties counted half, sandwich intervals clustered by prompt"
    note: str | None = None


def rank(comparisons: Sequence[JudgedPair], *, level: float = LEVEL) -> Ranking:
    """Rate the models; without ratings where the pairs do not connect them all.

    Source: evalica's `bradley_terry` (Newman, JMLR 24, 2023); intervals H⁻¹ΣH⁻¹, clustered by prompt.
    """
    # A model against itself says nothing of its strength.
    read = [pair for pair in comparisons if pair.winner is not None and pair.a != pair.b]
    errors = sum(pair.winner is None for pair in comparisons)
    # Sorted: the fit must not depend on the order of a set.
    models = sorted({model for pair in read for model in (pair.a, pair.b)})
    counts = {model: sum(model in (pair.a, pair.b) for pair in read) for model in models}
    # Between two groups that never met any shift fits as well: numbers on one scale would be invented.
    if len(models) < 2 or (islands := _islands(read, models)) > 1:
        reason = (
            "no pairs to rate" if len(models) < 2 else f"the pairs fall into {islands} groups that never met: no common scale"
        )
        return Ranking(
            tuple(Rating(model, None, None, None, counts[model]) for model in models), len(read), errors, note=reason
        )
    # Without it a model that never lost has no finite rating, and takes the scale of all the others with it.
    ridge = _needs_ridge(read, models)
    strengths = _fit(read, models, ridge)
    # Only differences are known, so the mean is fixed: 1000 is the average of the models compared, not of the world.
    beta = np.log(strengths) - np.log(strengths).mean()
    widths = _half_widths(read, models, beta, ridge, level)
    ratings = [_rating(model, beta[i], strengths[i], widths, i, level, counts[model]) for i, model in enumerate(models)]
    warning = (
        "a model has only wins or only losses: its rating is held by a small ridge, its size means little" if ridge else None
    )
    note = combine_notes(warning, None if widths is not None else too_few(len({pair.prompt for pair in read})))
    return Ranking(tuple(sorted(ratings, key=lambda rating: -(rating.rating or 0))), len(read), errors, note=note)


def _rating(
    model: str, beta: float, strength: float, widths: NDArray[np.float64] | None, index: int, level: float, count: int
) -> Rating:
    centre = CENTRE + SCALE * float(beta)
    interval = None if widths is None else Interval(centre - float(widths[index]), centre + float(widths[index]), level)
    return Rating(model, centre, interval, float(strength), count)


def _islands(pairs: Sequence[JudgedPair], models: Sequence[str]) -> int:
    """Return into how many groups the models fall that no pair connects."""
    place = {model: index for index, model in enumerate(models)}
    graph = np.zeros((len(models), len(models)))
    for pair in pairs:
        graph[place[pair.a], place[pair.b]] = 1
    return int(connected_components(graph, directed=False)[0])


def _needs_ridge(pairs: Sequence[JudgedPair], models: Sequence[str]) -> bool:
    """Return whether the likelihood has no maximum: the directed graph of "gained on" is not strongly connected."""
    place = {model: index for index, model in enumerate(models)}
    graph = np.zeros((len(models), len(models)))
    for pair in pairs:
        score = _score(pair)
        graph[place[pair.a], place[pair.b]] += score > 0
        graph[place[pair.b], place[pair.a]] += score < 1
    return bool(connected_components(graph, directed=True, connection="strong")[0] > 1)


def _score(pair: JudgedPair) -> float:
    """Return A's score: 1, ½ or 0."""
    return 1.0 if pair.winner == "a" else 0.0 if pair.winner == "b" else 0.5


def _fit(pairs: Sequence[JudgedPair], models: Sequence[str], ridge: bool) -> NDArray[np.float64]:
    """Return the strengths in the order of `models`, their sum 1."""
    winners = {"a": evalica.Winner.X, "b": evalica.Winner.Y}
    xs, ys = [pair.a for pair in pairs], [pair.b for pair in pairs]
    results = [winners.get(pair.winner or "", evalica.Winner.Draw) for pair in pairs]
    weights = [1.0] * len(pairs)
    if ridge:
        extra = [(a, b) for index, a in enumerate(models) for b in models[index + 1 :]]
        xs, ys = xs + [a for a, _ in extra], ys + [b for _, b in extra]
        results, weights = results + [evalica.Winner.Draw] * len(extra), weights + [RIDGE] * len(extra)
    fitted = evalica.bradley_terry(xs, ys, results, weights=weights, tolerance=TOLERANCE, limit=ITERATIONS)
    strengths = fitted.scores.reindex(models).to_numpy(dtype=np.float64)
    return np.asarray(strengths / strengths.sum())


def _half_widths(
    pairs: Sequence[JudgedPair], models: Sequence[str], beta: NDArray[np.float64], ridge: bool, level: float
) -> NDArray[np.float64] | None:
    """Return half the width of each rating's interval, from the sandwich covariance of mean-centred β."""
    place = {model: index for index, model in enumerate(models)}
    count = len(models)
    information, scores = np.zeros((count, count)), dict[Hashable, NDArray[np.float64]]()
    for pair in pairs:
        i, j = place[pair.a], place[pair.b]
        expected = 1 / (1 + math.exp(beta[j] - beta[i]))
        weight = expected * (1 - expected)
        for row, column, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            information[row, column] += sign * weight
        # Summed by prompt: votes on one prompt agree more than chance, and single votes would make intervals too narrow.
        gradient = scores.setdefault(pair.prompt, np.zeros(count))
        gradient[i] += _score(pair) - expected
        gradient[j] -= _score(pair) - expected
    clusters = len(scores)
    if clusters < MIN_ITEMS:
        return None
    if ridge:
        # The ridge's own draws, each of information ¼ at even odds, or the intervals of a model that never lost would be
        # endless.
        information += RIDGE / 4 * (count * np.eye(count) - 1)
    # β has one degree of freedom too many. Fixing its sum at 0 makes the information invertible; a pseudo-inverse would take
    # rounding noise in the singular direction for information.
    ones = np.full((count, count), 1 / count)
    inverse = np.linalg.inv(information + ones) - ones
    gradients = np.array(list(scores.values()))
    covariance = inverse @ (gradients.T @ gradients) @ inverse * clusters / (clusters - 1)
    return np.asarray(stats.norm.ppf((1 + level) / 2) * np.sqrt(np.clip(np.diag(covariance), 0, None)) * SCALE)
