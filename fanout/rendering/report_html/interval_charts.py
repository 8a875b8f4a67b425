"""Figures with a row for each model or pair: values with intervals, ranges of ranks, box plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fanout.rendering.report_html.axes import Axis, fit_axis
from fanout.rendering.report_html.canvas import WIDE, Format, draw, draw_columns, write
from fanout.rendering.report_html.markup import Markup, element, join

LABEL_ROOM, VALUE_ROOM = 205, 165


class IntervalRow(NamedTuple):
    """A value with its interval, and perhaps a wider one around it."""

    label: str
    tone: str
    value: float | None
    low: float | None = None
    high: float | None = None
    outer: tuple[float, float] | None = None


class BoxRow(NamedTuple):
    """A model's percentiles."""

    label: str
    tone: str
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


class RankRow(NamedTuple):
    """A model's best and worst rank."""

    label: str
    tone: str
    best: int
    worst: int


class _Rows:
    """The lay-out of rows: labels and values beside the marks where there is room, else above them."""

    def __init__(self, width: float, count: int) -> None:
        self.width, self.is_wide = width, width >= WIDE
        self.left, self.right = (LABEL_ROOM, width - VALUE_ROOM) if self.is_wide else (14, width - 14)
        self.step, self.top = (34, 6) if self.is_wide else (48, 4)
        self.bottom = self.top + self.step * count
        self.height = self.bottom + 26

    def get_middle(self, number: int) -> float:
        """Return the height of a row's marks."""
        return self.top + self.step * number + (17 if self.is_wide else 34)

    def label(self, number: int, label: str, value: str) -> Markup:
        """Return the texts of a row."""
        middle = self.get_middle(number)
        if self.is_wide:
            name = write(0, middle + 4.5, label, "label", room=LABEL_ROOM - 16)
            return join(name, write(self.width, middle + 4.5, value, "value", "end"))
        room = self.width - len(value) * 7.2 - 8
        return join(write(0, middle - 14, label, "label", room=room), write(self.width, middle - 14, value, "value", "end"))

    def draw_axis(self, axis: Axis, format_: Format) -> Sequence[Markup]:
        """Return the grid."""
        return draw_columns(axis, self.top, self.bottom, format_, 7 if self.is_wide else 4)


def draw_intervals(
    rows: Sequence[IntervalRow],
    width: float,
    title: str,
    format_: Format,
    *,
    zero: float | None = None,
    bounds: tuple[float, float] | None = None,
    format_tick: Format | None = None,
) -> Markup:
    """Return values with their intervals, one row each.

    Args:
        rows: from top to bottom.
        width: of the figure.
        title: what is read aloud.
        format_: writes a value.
        zero: the value at which a line shows "no difference".
        bounds: beyond which no value can lie.
        format_tick: writes a value of the axis.
    """
    frame = _Rows(width, len(rows))
    shown = [value for row in rows for value in (row.value, row.low, row.high, *(row.outer or ()))]
    axis = fit_axis(shown, frame.left, frame.right, include=() if zero is None else (zero,), bounds=bounds)
    parts = [*frame.draw_axis(axis, format_tick or format_)]
    if zero is not None:
        x = axis.place(zero)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="zero"))
    for number, row in enumerate(rows):
        y = frame.get_middle(number)
        parts.append(frame.label(number, row.label, _format_interval(row, format_, is_wide=frame.is_wide)))
        parts += _draw_interval(row, axis, y)
    return draw(width, frame.height, title, *parts)


def _format_interval(row: IntervalRow, format_: Format, *, is_wide: bool) -> str:
    if row.value is None:
        return "unknown"
    if row.low is None or row.high is None or not is_wide:
        return format_(row.value)
    return f"{format_(row.value)} [{format_(row.low)}, {format_(row.high)}]"


def _draw_interval(row: IntervalRow, axis: Axis, y: float) -> list[Markup]:
    marks: list[Markup] = []
    if row.outer is not None:
        low, high = map(axis.place, row.outer)
        marks.append(element("line", x1=low, x2=high, y1=y, y2=y, class_=f"outer {row.tone}"))
    if row.low is not None and row.high is not None:
        low, high = axis.place(row.low), axis.place(row.high)
        marks.append(element("line", x1=low, x2=high, y1=y, y2=y, class_=f"whisker {row.tone}"))
    if row.value is not None:
        marks.append(element("circle", cx=axis.place(row.value), cy=y, r=5.5, class_=f"mark {row.tone}"))
    return marks


def draw_ranks(rows: Sequence[RankRow], width: float, title: str) -> Markup:
    """Return the range of ranks that the items allow for each model."""
    frame = _Rows(width, len(rows))
    axis = Axis(0.5, max(len(rows), 2) + 0.5, frame.left, frame.right)
    parts: list[Markup] = []
    for rank in range(1, len(rows) + 1):
        x = axis.place(rank)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="grid"))
        parts.append(element("text", f"{rank}", x=x, y=frame.bottom + 17, class_="tick", text_anchor="middle"))
    for number, row in enumerate(rows):
        y, start, end = frame.get_middle(number), axis.place(row.best), axis.place(row.worst)
        band = f"{row.best}" if row.best == row.worst else f"{row.best}–{row.worst}"
        parts.append(frame.label(number, row.label, f"rank {band}"))
        parts.append(element("rect", x=start - 7, y=y - 7, width=end - start + 14, height=14, rx=7, class_=f"band {row.tone}"))
    return draw(width, frame.height, title, *parts)


def draw_boxes(rows: Sequence[BoxRow], width: float, title: str, format_: Format) -> Markup:
    """Return box plots on a logarithmic axis: median, quarters, and whiskers from 5 to 95 %."""
    frame = _Rows(width, len(rows))
    axis = fit_axis((value for row in rows for value in row[2:]), frame.left, frame.right, is_log=True)
    parts = [*frame.draw_axis(axis, format_)]
    for number, row in enumerate(rows):
        y = frame.get_middle(number)
        p5, p25, p50, p75, p95 = (axis.place(value) for value in row[2:])
        parts.append(frame.label(number, row.label, f"{format_(row.p50)} / {format_(row.p95)}"))
        parts.append(element("line", x1=p5, x2=p95, y1=y, y2=y, class_=f"outer {row.tone}"))
        parts += [element("line", x1=x, x2=x, y1=y - 4, y2=y + 4, class_=f"outer {row.tone}") for x in (p5, p95)]
        parts.append(element("rect", x=p25, y=y - 8, width=max(p75 - p25, 1.0), height=16, rx=3, class_=f"box {row.tone}"))
        parts.append(element("line", x1=p50, x2=p50, y1=y - 8, y2=y + 8, class_=f"median {row.tone}"))
    return draw(width, frame.height, title, *parts)
