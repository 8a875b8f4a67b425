"""Parts of the document: a figure with its table, a table alone, texts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from fanout.rendering.figures import ReportTable
from fanout.rendering.report_html.canvas import NARROW, WIDE
from fanout.rendering.report_html.markup import Markup, element, join, write_prose

Draw = Callable[[float], Markup]
"""Draws a figure in a given width."""


class Blocks:
    """Figures and tables of one document, whose tables are kept as CSV for its buttons."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count()
        self.files: list[tuple[str, str]] = []
        """Names and contents of the CSV files, in the order of the buttons."""

    def figure(self, title: str, caption: str, drawings: Draw | Sequence[Markup], table: ReportTable) -> Markup:
        """Return a figure, drawn for wide and narrow pages, with its table below.

        Args:
            title: its heading.
            caption: how to read it.
            drawings: draws it in a width, or small figures that are set beside each other.
            table: the same as figures.
        """
        across = ""
        if callable(drawings):
            drawn = [
                element("div", drawings(WIDE), class_="wide"),
                element("div", drawings(NARROW), class_="narrow"),
            ]
        else:
            drawn = [element("div", *drawings, class_="several")]
            across = " across"
        head = element("figcaption", element("h3", title), element("p", caption, class_="quiet"))
        return element("figure", head, *drawn, self.fold(table, "Table"), class_=f"figure{across}")

    def fold(self, table: ReportTable, title: str | None = None) -> Markup:
        """Return a table that opens when it is pressed."""
        summary = element("summary", title or table.title)
        return element("details", summary, self.table(table), class_="data")

    def table(self, table: ReportTable) -> Markup:
        """Return a table with its button for CSV."""
        name = "-".join(filter(None, (table.name, table.metric)))
        self.files.append((f"{name}.csv", table.to_csv()))
        numbers = ["number" if kind != "text" else None for kind in table.columns.values()]
        head = element(
            "tr", *(element("th", column, class_=css, scope="col") for column, css in zip(table.columns, numbers, strict=True))
        )
        rows = [
            element("tr", *(element("td", cell or "–", class_=css) for cell, css in zip(row, numbers, strict=True)))
            for row in table.format_rows()
        ]
        whole = element(
            "table", element("caption", table.title, class_="hidden"), element("thead", head), element("tbody", *rows)
        )
        button = element(
            "button", "CSV", type="button", class_="csv", data_csv=next(self._numbers), title="Save as CSV, unrounded"
        )
        return join(element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=table.title), button)


def section(name: str, title: str, *children: str | None) -> Markup:
    """Return a part of the document that a link can lead to."""
    return element("section", element("h2", title), *children, id=name)


def list_texts(texts: Sequence[str], class_: str | None = None) -> Markup:
    """Return a list of sentences."""
    return element("ul", *(element("li", write_prose(text)) for text in texts), class_=class_)
