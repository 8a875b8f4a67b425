"""Parts that all figures share: the frame, texts that fit, grid lines with their ticks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fanout.rendering.report_html.axes import Axis
from fanout.rendering.report_html.markup import Markup, element

WIDE, NARROW = 680, 330
"""Widths in which each figure is drawn; the style sheet shows the one that fits, so that its texts keep their size."""
LETTER = 7.9
"""Mean width of a letter at the labels' size."""
MINUS = " − "
"""Between the names of two models that are compared."""
TONES = 8
"""Colours of models; the next ones begin again."""
Format = Callable[[float], str]


def draw(width: float, height: float, title: str, *children: str | None, class_: str = "") -> Markup:
    """Return a figure; `title` is what is read aloud in its place."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *children, class_=f"plot {class_}".strip(), view_box=box, width=width, role="img", aria_label=title)


def write(x: float, y: float, text: str, class_: str = "", anchor: str | None = None, room: float | None = None) -> Markup:
    """Return a line of text, shortened to the room it has; pointing at it shows it whole."""
    short = text if room is None else shorten(text, int(room / LETTER))
    title = element("title", text) if short != text else None
    return element("text", title, short, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def shorten(text: str, letters: int) -> str:
    """Return a text of at most so many letters; of a longer one, both ends; of a pair, those of both names."""
    if len(text) <= letters:
        return text
    first, minus, second = text.partition(MINUS)
    if minus:
        half = (letters - len(MINUS)) // 2
        spared = max(half - len(first), half - len(second), 0)
        return f"{shorten(first, half + spared)}{MINUS}{shorten(second, half + spared)}"
    head = max((letters - 1) * 3 // 5, 1)
    return f"{text[:head]}…{text[len(text) - max(letters - 1 - head, 0) :]}"


def draw_columns(axis: Axis, top: float, bottom: float, format_: Format, most: int = 6) -> Sequence[Markup]:
    """Return the vertical grid lines of an axis, with their values below."""
    found: list[Markup] = []
    for tick in axis.list_ticks(most):
        x = axis.place(tick)
        found.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        found.append(element("text", format_(tick), x=x, y=bottom + 17, class_="tick", text_anchor="middle"))
    return found


def draw_lines(axis: Axis, left: float, right: float, format_: Format, most: int = 5) -> Sequence[Markup]:
    """Return the horizontal grid lines of an axis, with their values at the left."""
    found: list[Markup] = []
    for tick in axis.list_ticks(most):
        y = axis.place(tick)
        found.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        found.append(element("text", format_(tick), x=left - 8, y=y + 4, class_="tick", text_anchor="end"))
    return found


def get_tone(place: int) -> str:
    """Return the class that colours the marks of a model, by its place in the job."""
    return f"m{place % TONES}"


def format_plain(value: float) -> str:
    """Return a round value without needless digits."""
    return f"{value:,.10g}" if abs(value) >= 1 or value == 0 else f"{value:.6g}"


def format_usd(value: float) -> str:
    """Return dollars with as many digits as they need."""
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.2g}"


def format_ms(value: float) -> str:
    """Return a time in milliseconds, or in seconds if it is long."""
    return f"{value / 1000:,.3g} s" if value >= 1000 else f"{value:.3g} ms"
