"""Estimates with their intervals, as reports show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc, TypedDict

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.statistics.estimates import Estimate, Interval


class EstimateJson(TypedDict):
    value: Annotated[float | None, Doc("The figure; null: it cannot be known, see `note`.")]
    low: Annotated[float | None, Doc("Lower bound of the 95 % interval; null: none can be given.")]
    high: Annotated[float | None, Doc("Upper bound of the 95 % interval.")]
    n: Annotated[int, Doc("Items behind it.")]
    method: Annotated[str, Doc("Method by name.")]
    note: Annotated[str | None, Doc("What limits it.")]


def render_statistic(estimate: Estimate, unit: float = 1.0) -> EstimateJson:
    """Return an estimate, in the unit of which it has `unit`."""
    low, high = get_bounds(estimate.interval)
    return {
        "value": scale(estimate.value, unit),
        "low": scale(low, unit),
        "high": scale(high, unit),
        "n": estimate.n,
        "method": estimate.method,
        "note": estimate.note,
    }


def get_bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    """Return the bounds of an interval; `None` each where there is none."""
    return (interval.low, interval.high) if interval else (None, None)


def scale(value: float | None, unit: float) -> float | None:
    """Return a figure in another unit."""
    # Unknown stays unknown in every unit.
    return None if value is None else value * unit
