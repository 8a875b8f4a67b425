"""Tables, amounts and single lines of text for a terminal or a pipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

STATE_STYLES = {"ready": "green", "answers": "green", "failed": "red", "shut": "dim"}
"""Colours of cells, by their first word."""
# Text from a provider must not steer the terminal: each control character is shown as its picture. Lone surrogates
# cannot be encoded, so writing one would end the command with an error.
SAFE_CHARACTERS = str.maketrans(
    {chr(code): chr(0x2400 + code) for code in range(32)}
    | dict.fromkeys(map(chr, (*range(127, 160), *range(0xD800, 0xE000))), "\ufffd")
    | {"\t": "\t", "\n": "\n", "\r": ""}
)


def to_safe_text(text: str) -> str:
    """Return foreign text without characters that could steer the terminal."""
    return text.translate(SAFE_CHARACTERS)


def to_single_line(text: str) -> str:
    """Return foreign text as one line that cannot steer the terminal."""
    return " ".join(to_safe_text(text).split())


def format_usd(usd: float) -> str:
    """Return an amount of US dollars, to a millionth."""
    return f"${usd:.6f}".rstrip("0").rstrip(".")


def print_line(console: Console, text: str) -> None:
    """Print text as it is: without markup, colours or wrapping."""
    console.print(Text(text), soft_wrap=True)  # of a plain string rich would replace `:name:` by an emoji


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a plain table; a pipe gets padded text that is never wrapped. `right` names the columns to align right."""
    # cell_len, not len: characters of East Asian scripts take two columns.
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    if console.is_terminal:
        # Only the last column may be wrapped: it holds text; names and figures would be hard to read in pieces.
        is_too_wide = sum(widths) + 2 * len(widths) > console.width
        least = [*(width or None for width in widths[:-1]), None if is_too_wide else widths[-1] or None]
        console.print(_build_table(columns, rows, right, least))
        return
    for cells in (columns, *rows):
        padded = [
            " " * (width - cell_len(cell)) + cell if column in right else cell + " " * (width - cell_len(cell))
            for column, cell, width in zip(columns, cells, widths, strict=True)
        ]
        print_line(console, "  ".join(padded).rstrip())  # one line for each row, for programs


def _build_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], widths: Sequence[int | None]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, justify="right" if column in right else "left", min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(re.split("[ ,:]", cell)[0], "")) for cell in row))
    return table
