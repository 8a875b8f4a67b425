"""The rows of the table, and their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

HEADER = ("figure", "floor", "fanout", "ratio or added", "must", "aim", "met?", "errors", "RSS MB", "core lost")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `must` and `aim` bound the ratio fanout/floor, the difference, or Fanout's value itself."""

    figure: str
    unit: str
    fanout: float
    floor: float | None = None
    against: Literal["ratio", "added", "value"] = "value"
    must: float | None = None
    aim: float | None = None
    is_lower_bound: bool = False
    """`must` and `aim` are lower bounds."""
    errors: int = 0
    rss_mb: float | None = None
    lost_ratio: float | None = None
    """Share of the time the server wanted its core in which another program had it, in the worst sample."""
    samples: Mapping[str, Any] = field(default_factory=dict)
    ratio: float | None = None
    """The median of the turns' own ratios, which change less than the figures: `None` where there are no turns."""

    @classmethod
    def from_samples(cls, figure: str, unit: str, samples: Mapping[str, Sequence[float]], **rest: Any) -> Row:
        """Make a row of the medians of samples, which were taken in turns."""
        floor, fanout = (median(samples[name]) for name in ("floor", "fanout"))
        ratio = median(ours / bare for ours, bare in zip(samples["fanout"], samples["floor"], strict=True))
        return cls(figure, unit, fanout, floor, samples=samples, ratio=ratio, **rest)

    @property
    def result(self) -> float:
        """The figure the bounds apply to."""
        if self.against == "value" or self.floor is None:
            return self.fanout
        if self.against == "ratio":
            return self.fanout / self.floor if self.ratio is None else self.ratio
        return self.fanout - self.floor

    @property
    def verdict(self) -> str:
        if self.errors:
            return "INVALID"
        if self.must is None:
            return ""
        return "aim" if self._within(self.aim) else "must" if self._within(self.must) else "NO"

    @property
    def is_bad(self) -> bool:
        return self.verdict in ("INVALID", "NO")

    def to_cells(self) -> tuple[str, ...]:
        unit = "×" if self.against == "ratio" else self.unit
        result = "" if self.against == "value" else format_number(self.result, unit)
        must, aim = (
            f"{'≥' if self.is_lower_bound else '≤'} {bound:g} {unit}" if bound else "" for bound in (self.must, self.aim)
        )
        sides = format_number(self.floor, self.unit), format_number(self.fanout, self.unit)
        lost = "–" if self.lost_ratio is None else f"{self.lost_ratio:.0%}"
        return (self.figure, *sides, result, must, aim, self.verdict, str(self.errors), format_number(self.rss_mb), lost)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"result": self.result, "verdict": self.verdict}

    def _within(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.result >= bound if self.is_lower_bound else self.result <= bound


@dataclass(frozen=True, slots=True)
class Missing:
    """A figure that was not measured."""

    figure: str
    reason: str
    is_bad: bool = True
    """It is a fault, not just something optional that is not installed."""

    def to_cells(self) -> tuple[str, ...]:
        return (self.figure, "–", "–", "", "", "", "FAILED" if self.is_bad else "not installed", "–", "–", "–")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def format_number(value: float | None, unit: str = "") -> str:
    """Return a number with at least two significant digits."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def format_table(rows: Sequence[Row | Missing]) -> str:
    """Return the table in Markdown, followed by the reasons for missing figures."""
    lines = [HEADER, *(row.to_cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    rule = tuple("-" * width for width in widths)
    padded = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )
    reasons = (f"{row.figure}: {row.reason}" for row in rows if isinstance(row, Missing))
    return "\n".join((*padded, *reasons))
