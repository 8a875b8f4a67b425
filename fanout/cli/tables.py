"""The sinks of the command line: its console, and tables and single lines of text for a terminal or a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fanout.core.shown_text import to_safe_text

MIN_LAST_COLUMNS = 10
"""Width of the last column of a table that fits nowhere."""
STATE_STYLES = {"ready": "green", "answers": "green", "failed": "red", "shut": "dim"}
"""Colours of cells, by their first word."""


class SafeConsole(Console):
    """A console that no text can steer: every renderable's text passes `to_safe_text`, rich's own controls excepted."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(to_safe_text(segment.text), segment.style)


def print_line(console: Console, text: str) -> None:
    """Print text as it is: without markup, colours or wrapping."""
    console.print(Text(text), soft_wrap=True)  # of a plain string rich would replace `:name:` by an emoji


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a plain table; a pipe gets padded text that is never wrapped. `right` names the columns to align right."""
    # cell_len, not len: characters of East Asian scripts take two columns.
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    if console.is_terminal:
        # Only the last column may be wrapped: it holds text; names and figures would be hard to read in pieces.
        room = console.width - sum(widths[:-1]) - 2 * (len(widths) - 1)
        console.print(_build_table(columns, rows, right, [*widths[:-1], max(min(widths[-1], room), MIN_LAST_COLUMNS)]))
        return
    for cells in (columns, *rows):
        padded = [
            " " * (width - cell_len(cell)) + cell if column in right else cell + " " * (width - cell_len(cell))
            for column, cell, width in zip(columns, cells, widths, strict=True)
        ]
        print_line(console, "  ".join(padded).rstrip())  # one line for each row, for programs


def drop_columns(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], least_needed: Sequence[str], min_last: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return a table for a terminal without the columns that do not fit, the first of `least_needed` first.

    Of the last column, which is wrapped, `min_last` characters are to fit. A pipe gets everything.
    """
    for name in least_needed if console.is_terminal else ():
        widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
        if sum(widths[:-1]) + min(widths[-1], min_last) + 2 * len(widths) <= console.width:
            break
        place = columns.index(name)
        columns = [*columns[:place], *columns[place + 1 :]]
        rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    return columns, rows


def _build_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], widths: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        # Fixed: rich would narrow several columns at once, and cut what it then cannot show.
        table.add_column(column, justify="right" if column in right else "left", width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(re.split("[ ,:]", cell)[0], "")) for cell in row))
    return table
