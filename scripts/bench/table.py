"""The rows, what their bounds say, and the one table they are printed in."""

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
    at_least: bool = False
    """The bounds are lower ones."""
    errors: int = 0
    rss_mb: float | None = None
    lost_ratio: float | None = None
    """Of the time the server wanted its core, in which something else had it, in the worst sample."""
    samples: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, figure: str, unit: str, taken: Mapping[str, Sequence[float]], **rest: Any) -> Row:
        """The medians of what was taken by turns."""
        floor, fanout = (median(taken[name]) for name in ("floor", "fanout"))
        return cls(figure, unit, fanout, floor, samples=taken, **rest)

    @property
    def result(self) -> float:
        """What the bounds are about."""
        if self.against == "value" or self.floor is None:
            return self.fanout
        return self.fanout / self.floor if self.against == "ratio" else self.fanout - self.floor

    @property
    def verdict(self) -> str:
        if self.errors:
            return "INVALID"
        if self.must is None:
            return ""
        return "aim" if self._within(self.aim) else "must" if self._within(self.must) else "NO"

    @property
    def bad(self) -> bool:
        return self.verdict in ("INVALID", "NO")

    def cells(self) -> tuple[str, ...]:
        unit = "×" if self.against == "ratio" else self.unit
        result = "" if self.against == "value" else number(self.result, unit)
        must, aim = (f"{'≥' if self.at_least else '≤'} {bound:g} {unit}" if bound else "" for bound in (self.must, self.aim))
        sides = number(self.floor, self.unit), number(self.fanout, self.unit)
        lost = "–" if self.lost_ratio is None else f"{self.lost_ratio:.0%}"
        return (self.figure, *sides, result, must, aim, self.verdict, str(self.errors), number(self.rss_mb), lost)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"result": self.result, "verdict": self.verdict}

    def _within(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.result >= bound if self.at_least else self.result <= bound


@dataclass(frozen=True, slots=True)
class Missing:
    """A figure that was not measured, and why."""

    figure: str
    reason: str
    bad: bool = True
    """A fault, not just something optional that is absent."""

    def cells(self) -> tuple[str, ...]:
        return (self.figure, "–", "–", "", "", "", "FAILED" if self.bad else "not installed", "–", "–", "–")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def number(value: float | None, unit: str = "") -> str:
    """At least two significant digits, thousands in groups."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def written(rows: Sequence[Row | Missing]) -> str:
    """The table in Markdown, and beneath it why something is missing."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    rule = tuple("-" * width for width in widths)
    padded = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )
    reasons = (f"{row.figure}: {row.reason}" for row in rows if isinstance(row, Missing))
    return "\n".join((*padded, *reasons))
