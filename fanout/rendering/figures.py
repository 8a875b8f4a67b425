"""Tables of figures, and the figures as people read them. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["text", "count", "score", "usd", "ms", "p", "rate"]
Cell = str | int | float | None


class ReportTable(NamedTuple):
    """A table of figures."""

    name: str
    """For programs, as `pairs`."""
    metric: str | None
    title: str
    columns: Mapping[str, Kind]
    rows: Sequence[Sequence[Cell]]

    @property
    def right(self) -> Sequence[str]:
        """Columns of figures."""
        return [name for name, kind in self.columns.items() if kind != "text"]

    def format_rows(self) -> list[list[str]]:
        """Return the cells as people read them."""
        return [[format_cell(value, kind) for value, kind in zip(row, self.columns.values(), strict=True)] for row in self.rows]

    def to_csv(self) -> str:
        """Return the figures, unrounded."""
        written = io.StringIO()
        writer = csv.writer(written)
        # Unrounded: whoever computes on needs every digit, and people read the other form.
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return written.getvalue()


def format_cell(value: Cell, kind: Kind) -> str:
    """Return a cell as people read it; unknown is empty."""
    if value is None or isinstance(value, str):
        return value or ""
    if kind == "count":
        return f"{value:,}"
    if kind == "p":
        # Never "0.0000": no finite sample gives a p-value of 0.
        return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
    if kind == "usd":
        return f"${value:.4f}" if abs(value) < 1 else f"${value:,.2f}"
    if kind == "ms":
        return f"{value:,.0f} ms" if abs(value) >= 10 else f"{value:.2g} ms"
    return f"{value:,.1f}" if kind == "rate" else format_score(value)


def format_score(value: float) -> str:
    """Return a score with three decimals, or four significant digits if it is large."""
    return f"{value:.3f}" if abs(value) < 1_000 else f"{value:,.4g}"


def format_band(best: int | None, worst: int | None) -> str:
    """Return the ranks that are possible, as "1–3"."""
    return "" if best is None else str(best) if best == worst else f"{best}–{worst}"
