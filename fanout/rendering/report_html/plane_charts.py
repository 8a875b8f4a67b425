"""Figures on a plane: cost against quality, score against score, score by repeat, win rates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from fanout.rendering.report import GridCellJson
from fanout.rendering.report_html.axes import Axis, fit_axis
from fanout.rendering.report_html.canvas import LETTER, WIDE, Format, draw, draw_columns, draw_lines, format_plain, write
from fanout.rendering.report_html.markup import Markup, element
from fanout.rendering.stopping import PathPointJson

LINE = 15
"""Height of a line of text."""
MAX_RADIUS = 15.0
"""Of the circle with most items; less where many stand side by side."""
SHADES = 5
"""Steps of colour at each side of an even win rate."""
LABEL_END = 190
"""Room for names at the right of lines."""
LOG_FROM = 8.0
"""A logarithmic axis where the greatest value is so many times the least."""


class Point(NamedTuple):
    """A model's cost and quality, with the quality's interval and the cost's."""

    label: str
    tone: str
    x: float
    y: float
    x_bounds: tuple[float, float] | None = None
    y_bounds: tuple[float, float] | None = None


class Line(NamedTuple):
    """A model's score of each repeat."""

    label: str
    tone: str
    values: Sequence[float | None]


def draw_trade_off(points: Sequence[Point], width: float, title: str, format_x: Format) -> Markup:
    """Return quality against cost, with whiskers, and a line through the models that no other one beats in both."""
    is_wide = width >= WIDE
    height, left, right, top = (340 if is_wide else 300), 52, width - 16, 14
    bottom = height - 30
    xs = [value for point in points for value in (point.x, *(point.x_bounds or ()))]
    positive = [point.x for point in points]
    is_log = min(positive) > 0 and max(positive) / min(positive) >= LOG_FROM
    x_axis = fit_axis(xs, left, right, is_log=is_log, include=() if is_log else (0.0,))
    y_axis = fit_axis([value for point in points for value in (point.y, *(point.y_bounds or ()))], bottom, top)
    parts = [*draw_lines(y_axis, left, right, format_plain), *draw_columns(x_axis, top, bottom, format_x, 6 if is_wide else 4)]
    best = find_front(points)
    corners = [(x_axis.place(point.x), y_axis.place(point.y)) for point in best]
    if len(corners) > 1:
        parts.append(element("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in corners), class_="front"))
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda one: -one.y):
        x, y = x_axis.place(point.x), y_axis.place(point.y)
        if point.y_bounds:
            low, high = map(y_axis.place, point.y_bounds)
            parts.append(element("line", x1=x, x2=x, y1=low, y2=high, class_=f"outer {point.tone}"))
        if point.x_bounds:
            low, high = map(x_axis.place, point.x_bounds)
            parts.append(element("line", x1=low, x2=high, y1=y, y2=y, class_=f"outer {point.tone}"))
        parts.append(element("circle", cx=x, cy=y, r=6, class_=f"mark {point.tone}"))
        parts.append(_label_point(point.label, x, y, (left, right, bottom), taken))
    return draw(width, height, title, *parts)


def _label_point(
    label: str, x: float, y: float, frame: tuple[float, float, float], taken: list[tuple[float, float, float]]
) -> Markup:
    """Return the name of a point, beside it, where it covers no other name."""
    left, right, bottom = frame
    room = max(right - x, x - left) - 12
    length = min(len(label) * LETTER, room)
    is_right = x + 12 + length <= right
    start = x + 11 if is_right else x - 11 - length
    near = [other for begin, end, other in taken if start < end and begin < start + length]
    lines = sorted(range(20, int(bottom) - 3), key=lambda line: abs(line - (y - 9)))
    line = next((line for line in lines if all(abs(line - other) >= LINE for other in near)), lines[0])
    taken.append((start, start + length, line))
    return write(x + 11 if is_right else x - 11, line, label, "label", None if is_right else "end", room)


def find_front(points: Sequence[Point]) -> list[Point]:
    """Return, by cost, the points that no other one beats in cost and quality."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def draw_agreement(cells: Sequence[GridCellJson], labels: tuple[str, str], title: str) -> Markup:
    """Return the items by their scores of two models: the area of a circle is their number, the line is equality."""
    size, left, top = 250, 44, 26
    bottom = size - 40
    end = left + bottom - top
    values = [value for cell in cells for value in (cell["a"], cell["b"])]
    across, up = fit_axis(values, left, end), fit_axis(values, bottom, top)
    most = max(cell["items"] for cell in cells)
    largest = min(MAX_RADIUS, (bottom - top) / len({cell["a"] for cell in cells}))
    parts = [*draw_lines(up, left, end, format_plain, 4), *draw_columns(across, top, bottom, format_plain, 4)]
    parts.append(element("line", x1=left, y1=bottom, x2=end, y2=top, class_="zero"))
    for cell in sorted(cells, key=lambda one: -one["items"]):
        radius = max(largest * sqrt(cell["items"] / most), 1.5)
        side = "above" if cell["b"] > cell["a"] else "below" if cell["b"] < cell["a"] else "even"
        count = element("title", f"{cell['items']:,} items: {format_plain(cell['a'])} and {format_plain(cell['b'])}")
        parts.append(
            element("circle", count, cx=across.place(cell["a"]), cy=up.place(cell["b"]), r=radius, class_=f"bubble {side}")
        )
    parts.append(write((left + end) / 2, size - 6, f"A: {labels[0]}", "axis", "middle", room=end - left + 20))
    parts.append(write(0, 12, f"B: {labels[1]}", "axis", room=size - 10))
    return draw(size, size, title, *parts, class_="small")


def draw_repeats(lines: Sequence[Line], width: float, title: str, format_: Format) -> Markup:
    """Return each model's mean by repeat."""
    is_wide = width >= WIDE
    count = max(len(line.values) for line in lines)
    height, left, top = 230, 52, 12
    names = LABEL_END if is_wide else 90
    right, bottom = width - names, height - 30
    up = fit_axis([value for line in lines for value in line.values], bottom, top)
    across = Axis(1.0, max(count, 2), left + 14, right - 14)
    parts = [*draw_lines(up, left, right, format_plain)]
    parts += [
        element("text", f"{number}", x=across.place(number), y=bottom + 17, class_="tick", text_anchor="middle")
        for number in range(1, count + 1)
    ]
    ends: list[float] = []
    for line in sorted(lines, key=lambda one: -(one.values[-1] or 0.0)):
        known = [(across.place(n), up.place(value)) for n, value in enumerate(line.values, 1) if value is not None]
        parts += [
            element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=f"whisker thin {line.tone}")
            for (x1, y1), (x2, y2) in pairwise(known)
        ]
        parts += [element("circle", cx=x, cy=y, r=4.5, class_=f"mark {line.tone}") for x, y in known]
        if known:
            place = max([known[-1][1] + 4.5, *(end + LINE for end in ends[-1:])])
            ends.append(place)
            last = line.values[-1]
            name = line.label if last is None or not is_wide else f"{line.label} {format_(last)}"
            parts.append(write(right + 2, place, name, "label", room=names - 4))
    return draw(width, height, title, *parts)


def draw_course(path: Sequence[PathPointJson], margin: float | None, width: float, title: str) -> Markup:
    """Return a difference with its interval after each item; lines at no difference and at the margin."""
    is_wide = width >= WIDE
    height, left, right, top = (260 if is_wide else 230), 52, width - 16, 12
    bottom = height - 34
    lines = [] if margin is None else [-margin, margin]
    up = fit_axis([bound for one in path for bound in (one["low"], one["high"])], bottom, top, include=(0.0, *lines))
    across = Axis(0.0, float(max(path[-1]["items"], 1)), left, right)
    parts = [*draw_lines(up, left, right, format_plain), *draw_columns(across, top, bottom, format_plain, 6 if is_wide else 4)]
    places = [(across.place(one["items"]), up.place(one["low"]), up.place(one["high"])) for one in path]
    corners = [*((x, high) for x, _, high in places), *((x, low) for x, low, _ in reversed(places))]
    parts.append(element("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in corners) + "Z", class_="course m0"))
    levels = [(up.place(0.0), "zero"), *((up.place(line), "front") for line in lines)]
    parts += [element("line", x1=left, x2=right, y1=y, y2=y, class_=css) for y, css in levels]
    means = [(across.place(one["items"]), up.place(one["difference"])) for one in path]
    parts += [element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="whisker thin m0") for (x1, y1), (x2, y2) in pairwise(means)]
    parts.append(element("circle", cx=means[-1][0], cy=means[-1][1], r=4.5, class_="mark m0"))
    parts.append(write(right, height - 2, "items", "axis", "end"))
    return draw(width, height, title, *parts)


def draw_heat_map(models: Sequence[str], rates: Mapping[tuple[str, str], float], width: float, title: str) -> Markup:
    """Return the rate at which the model of the row is preferred to that of the column."""
    is_wide = width >= WIDE
    left, top = (180, 30) if is_wide else (96, 30)
    cell = min((width - left) / len(models), 124)
    tall = min(cell, 46)
    height = top + tall * len(models) + 4
    parts: list[Markup] = []
    for column, name in enumerate(models):
        parts.append(write(left + cell * (column + 0.5), top - 10, name, "tick", "middle", room=cell - 4))
    for line, a in enumerate(models):
        y = top + tall * line
        parts.append(write(0, y + tall / 2 + 4, a, "label", room=left - 12))
        for column, b in enumerate(models):
            rate, x = rates.get((a, b)), left + cell * column
            parts.append(
                element("rect", x=x + 1, y=y + 1, width=cell - 2, height=tall - 2, rx=4, class_=f"heat {_shade(rate)}")
            )
            if rate is not None:
                text = f"{rate:.0%}".replace("%", " %")
                parts.append(element("text", text, x=x + cell / 2, y=y + tall / 2 + 4, class_="cell", text_anchor="middle"))
    return draw(width, height, title, *parts)


def _shade(rate: float | None) -> str:
    """Return the class of a cell: `n`, or `w1` … `w5` for wins, `l1` … `l5` for losses."""
    if rate is None:
        return "none"
    step = min(round(abs(rate - 0.5) * 2 * SHADES), SHADES)
    return "n" if step == 0 else f"{'w' if rate > 0.5 else 'l'}{step}"
