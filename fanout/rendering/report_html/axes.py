"""Axes of figures: from values to places, with ticks at round values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

ROUND_STEPS = (1.0, 2.0, 5.0, 10.0)
MARGIN = 0.06
"""Share of the range that is left free at both ends, so that no mark touches the frame."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values on a stretch of the figure, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the place of a value; what lies outside is put at the end."""
        low, high = self._scale(self.low), self._scale(self.high)
        share = (self._scale(max(value, self.low) if self.is_log else value) - low) / (high - low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def list_ticks(self, most: int = 6) -> list[float]:
        """Return round values within the range."""
        return _list_powers(self.low, self.high, most) if self.is_log else _list_steps(self.low, self.high, most)

    def _scale(self, value: float) -> float:
        return log10(value) if self.is_log else value


def fit_axis(
    values: Iterable[float | None],
    start: float,
    end: float,
    *,
    is_log: bool = False,
    include: Iterable[float] = (),
    bounds: tuple[float, float] | None = None,
) -> Axis:
    """Return an axis on which all values lie.

    Args:
        values: what is shown; `None` is unknown. On a logarithmic axis only positive ones count.
        start: place of its low end.
        end: place of its high end.
        is_log: equal distances are equal factors.
        include: values that must lie on it, too.
        bounds: values beyond which it does not go, as 0 and 1 for shares.
    """
    known = [value for value in (*values, *include) if value is not None and (value > 0 or not is_log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0) if is_log else (0.0, 1.0)
    if is_log:
        factor = max((high / low) ** MARGIN, 1.15)
        return Axis(low / factor, high * factor, start, end, is_log=True)
    margin = (high - low) * MARGIN or abs(high) * 0.1 or 0.5
    low, high = low - margin, high + margin
    if bounds is not None and bounds[0] < high and low < bounds[1]:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Axis(low, high, start, end)


def _list_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in ROUND_STEPS if factor * power >= rough * (1 - 1e-9))
    digits = max(0, 1 - floor(log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(ceil(low / step), floor(high / step) + 1)]


def _list_powers(low: float, high: float, most: int) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        ticks = [float(f"{factor * 10.0**power:.6g}") for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks[:: ceil(len(ticks) / most)] if ticks else ticks
