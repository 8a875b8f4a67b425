"""Result types of the statistics, and the bounds below which no interval is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_ITEMS = 15
"""Fewest items for an interval or a p-value: below it the methods' own errors are larger than what they measure."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float = LEVEL

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval, the method by name, and a note where something about it is not known."""

    value: float | None
    interval: Interval | None
    n: int
    """Items behind the figure."""
    method: str
    standard_error: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A paired difference A − B with its interval and p-value."""

    difference: Estimate
    p_value: float | None
    p_method: str
    smallest_p: float | None = None
    """The smallest p-value that data of this size could reach, for exact tests."""
    dropped: int = 0
    """Items that one of the two lacks."""
    chi_squares: tuple[float, float] | None = None
    """McNemar's statistic without and with correction, for comparison with published tables; `None`: not 0/1 scores."""


def to_floats(values: Sequence[float] | Floats) -> Floats:
    """Return the values as an array of floats.

    Raises:
        ValueError: one of them is NaN or infinite; what is missing is left out by the caller, who counts it.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expects one value an item, got an array of shape {array.shape}")
    # NaN passes silently through numpy and ends as "nan" in a report, where nobody can find its origin.
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite; drop and count them")
    return array


def too_few(n: int) -> str:
    """Return the sentence that stands in place of an interval."""
    return f"{n} items are too few for an interval or a p-value; at least {MIN_ITEMS} are needed"


def combine_notes(*notes: str | None) -> str | None:
    """Return the notes as one text; `None` where there is none."""
    found = [note for note in notes if note]
    return "; ".join(found) if found else None


def join_names(names: Sequence[str]) -> str:
    """Return two names or more as they stand in a sentence: "A, B and C"."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def mean_of(values: Floats) -> float | None:
    """Return the mean; `None` for no values."""
    return float(values.mean()) if values.size else None


def clip(interval: Interval, low: float, high: float) -> Interval:
    """Return the interval within the range that the figure can take."""
    return Interval(max(interval.low, low), min(interval.high, high), interval.level)


def is_binary(values: Floats) -> bool:
    """Return whether every value is 0 or 1."""
    # Exactly: a mean of repeats such as 0.5 must not be tested as a share.
    return bool(np.isin(values, (0.0, 1.0)).all())


def is_constant(values: Floats) -> bool:
    """Return whether the values are equal but for rounding noise."""
    # Equal means of repeats differ by rounding, and a t interval of that width would look like certainty.
    return not values.size or float(np.ptp(values)) <= 1e-12 * max(1.0, float(np.abs(values).max()))


def round_up(value: float) -> int:
    """Return the next whole number, with tolerance for floating-point noise."""
    # 400.0000000001 items are 400: examples in the documents must come out as published.
    return math.ceil(value - 1e-9)
