"""HTML and SVG whose texts cannot become markup: a plain `str` is escaped wherever it is put in. Pure."""

from __future__ import annotations

import html

from fanout.core.shown_text import split_code, to_safe_text

# Beside the marks of `shown_text`: they turn the direction of a text, and could make a name read as another.
UNSAFE = {10: " ", 9: " "} | dict.fromkeys(map(ord, "\u061c\u200e\u200f"), "")
VOID = frozenset(("link", "meta", "circle", "line", "path", "rect"))
Attribute = str | int | float | bool | None


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Return foreign text on one line, in which nothing is markup or steers what surrounds it."""
    return text if isinstance(text, Markup) else Markup(html.escape(to_safe_text(text).translate(UNSAFE)))


def join(*parts: str | None) -> Markup:
    """Return parts one behind the other; `None` stands for nothing."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def write_prose(text: str) -> Markup:
    """Return a sentence whose parts between backticks, which are commands and names, are set as code."""
    return join(*(element("code", part) if place % 2 else part for place, part in enumerate(split_code(text))))


def element(name: str, /, *children: str | None, **attributes: Attribute) -> Markup:
    """Return an element. `class_` is written as `class`, `stroke_width` as `stroke-width`; `None` and `False` are left out."""
    written = "".join(
        _to_attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    return Markup(f"<{name}{written}/>" if name in VOID and not children else f"<{name}{written}>{join(*children)}</{name}>")


def _to_attribute(key: str, value: Attribute) -> str:
    name = "viewBox" if key == "view_box" else key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(f"{value:.5g}" if isinstance(value, float) else str(value))}"'
