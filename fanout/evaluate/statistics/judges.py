"""A judge against people: agreement beyond chance, and rates corrected by what labels show of the judge's errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy import stats

from fanout.evaluate.statistics.estimates import (
    LEVEL,
    MIN_ITEMS,
    Estimate,
    Floats,
    Interval,
    clip,
    combine_notes,
    is_binary,
    to_floats,
)

MIN_LABELS = 30
NOT_VALIDATED = "judge not validated"
"""Printed beside every figure that rests on a judge with fewer than 30 labels."""


def describe_validation(labels: int) -> str | None:
    """Return the sentence for figures that rest on a judge; `None` where it has labels enough."""
    return None if labels >= MIN_LABELS else f"{NOT_VALIDATED}: {labels} of {MIN_LABELS} labels by people"


def cohens_kappa(judge: Sequence[Hashable], people: Sequence[Hashable]) -> float | None:
    """Return the agreement beyond chance; `None` where both use one and the same category throughout, or there is no pair.

    Raw agreement overstates by 33 to 41 points (arXiv 2606.19544).

    Raises:
        ValueError: the two have different lengths.
    """
    if len(judge) != len(people):
        raise ValueError(f"{len(judge)} verdicts of the judge, but {len(people)} labels")
    n = len(judge)
    if not n:
        return None
    observed = sum(one == other for one, other in zip(judge, people, strict=True)) / n
    first, second = Counter(judge), Counter(people)
    chance = sum(first[category] * second[category] for category in first) / n**2
    # One category throughout: agreement by chance is certain, and 0 / 0 is no agreement.
    return None if chance == 1 else (observed - chance) / (1 - chance)


def agreement(first: Sequence[Hashable | None], second: Sequence[Hashable | None]) -> float | None:
    """Return the share of equal verdicts where both could be read, for the stability of a judge on repeated questions."""
    pairs = [(one, other) for one, other in zip(first, second, strict=True) if one is not None and other is not None]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else None


def position_bias(shown_first_won: int, shown_second_won: int) -> float | None:
    """Return by how much the first place is preferred, −1 to 1; `None` without a decided verdict."""
    decided = shown_first_won + shown_second_won
    return (shown_first_won - shown_second_won) / decided if decided else None


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """A mean by a judge, corrected by what people's labels show of its errors."""

    estimate: Estimate
    labels: int
    weight: float | None
    """Of the judge beside the labels, 0 to 1; `None` where its rate was corrected by sensitivity and specificity."""
    effective_labels: float | None
    """Labels that would give as narrow an interval without a judge."""


def correct_mean(
    labels: Sequence[float] | Floats,
    judged_labelled: Sequence[float] | Floats,
    judged_unlabelled: Sequence[float] | Floats,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = LEVEL,
) -> CorrectedMean:
    """Return the mean that people would give to all items: Rogan–Gladen for 0/1 scores, else PPI++.

    Args:
        labels: people's scores, one an item, of a random part of the items.
        judged_labelled: the judge's scores of the same items.
        judged_unlabelled: of the other items.
        bounds: within which a score lies.
    """
    y, f, rest = to_floats(labels), to_floats(judged_labelled), to_floats(judged_unlabelled)
    # A difference of two rates is no rate, even if it happens to be 0 or 1 throughout.
    found, weight = _correct_rate(y, f, rest, level) if bounds == (0, 1) else None, None
    if found is None or found.value is None:
        # A judge no better than chance has no rate to invert, but labels that count all the same.
        found, weight = ppi_mean(y, f, rest, level=level)
    if found.interval is not None:
        found = replace(found, interval=clip(found.interval, *bounds))
    effective = effective_labels(y, found.standard_error) if found.standard_error and y.size > 1 else None
    if y.size < MIN_ITEMS:
        few = f"{y.size} labels are too few for an interval; at least {MIN_ITEMS} are needed"
        found, effective = replace(found, interval=None, note=combine_notes(few, found.note)), None
    return CorrectedMean(found, y.size, weight, effective)


def _correct_rate(y: Floats, f: Floats, rest: Floats, level: float) -> Estimate | None:
    """Return the corrected rate; `None` where a score is neither 0 nor 1, or people give but one of them."""
    if not (y.size and rest.size and is_binary(y) and is_binary(f) and is_binary(rest)) or y.min() == y.max():
        return None
    return rogan_gladen(
        int(f.sum() + rest.sum()),
        f.size + rest.size,
        true_positives=int(((y == 1) & (f == 1)).sum()),
        labelled_positives=int(y.sum()),
        true_negatives=int(((y == 0) & (f == 0)).sum()),
        labelled_negatives=int((y == 0).sum()),
        level=level,
    )


def rogan_gladen(
    positives: int,
    n: int,
    *,
    true_positives: int,
    labelled_positives: int,
    true_negatives: int,
    labelled_negatives: int,
    level: float = LEVEL,
) -> Estimate:
    """Return a judged rate, corrected by the judge's sensitivity and specificity on labelled items.

    Formula: θ = (p + specificity − 1) / (sensitivity + specificity − 1), delta-method interval. Source: Rogan & Gladen (1978);
    arXiv 2511.21140.
    """
    method = "judged rate, Rogan–Gladen"
    if not n or not labelled_positives or not labelled_negatives:
        return Estimate(None, None, n, method, note="labels of both kinds and judged items are needed")
    rate = positives / n
    sensitivity, specificity = true_positives / labelled_positives, true_negatives / labelled_negatives
    youden = sensitivity + specificity - 1
    # Dividing by a value near 0 would turn noise into a rate with a tidy interval.
    if youden <= 0:
        return Estimate(
            None, None, n, method, note="the judge is no better than chance on the labelled items: nothing to correct"
        )
    corrected = (rate + specificity - 1) / youden
    variance = (
        rate * (1 - rate) / n
        + (1 - corrected) ** 2 * specificity * (1 - specificity) / labelled_negatives
        + corrected**2 * sensitivity * (1 - sensitivity) / labelled_positives
    ) / youden**2
    error = sqrt(variance)
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    interval = clip(Interval(corrected - half, corrected + half, level), 0.0, 1.0)
    note = describe_validation(labelled_positives + labelled_negatives)
    if not 0 <= corrected <= 1:
        note = f"{note}; outside 0 to 1 and clipped" if note else "outside 0 to 1 and clipped"
    return Estimate(min(max(corrected, 0.0), 1.0), interval, n, method, error, note)


def ppi_mean(
    labels: Sequence[float] | Floats,
    judged_labelled: Sequence[float] | Floats,
    judged_unlabelled: Sequence[float] | Floats,
    *,
    level: float = LEVEL,
) -> tuple[Estimate, float | None]:
    """Return the mean label over all items, from few labels and many judgements, and λ, the judge's weight.

    Formula: θ = mean(Y) + λ · (mean f of the unlabelled − mean f of the labelled), unpooled variances, λ clipped to 0 … 1.
    Source: PPI++ (Angelopoulos, Duchi & Zrnic, arXiv 2311.01453).

    Raises:
        ValueError: not one judgement for each label.
    """
    y, f, rest = to_floats(labels), to_floats(judged_labelled), to_floats(judged_unlabelled)
    if y.size != f.size:
        raise ValueError(f"{y.size} labels, but {f.size} judgements of the same items")
    n, unlabelled = y.size, rest.size
    if n < 2 or unlabelled < 2:
        return Estimate(None, None, n, "PPI++", note="at least two labelled and two unlabelled items are needed"), None
    # A judge that gives one score to everything has no spread, and earns no weight.
    spread = (1 + n / unlabelled) * float(np.var(f, ddof=1))
    weight = float(np.cov(y, f, ddof=1)[0, 1]) / spread if spread else 0.0
    # Beyond these bounds the judge would count for more than a label, or against itself.
    weight = min(max(weight, 0.0), 1.0)
    value = float(y.mean() + weight * (rest.mean() - f.mean()))
    error = sqrt(float(np.var(y - weight * f, ddof=1)) / n + weight**2 * float(np.var(rest, ddof=1)) / unlabelled)
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    note = describe_validation(n)
    return Estimate(value, Interval(value - half, value + half, level), n + unlabelled, "mean, PPI++", error, note), weight


def effective_labels(labels: Sequence[float] | Floats, error: float) -> float:
    """Return how many labels alone would give this standard error, which is not 0."""
    return float(np.var(to_floats(labels), ddof=1)) / error**2
