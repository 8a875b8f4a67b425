"""Rows of CSV and TSV, by RFC 4180."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from fanout.jobs.input_formats.rows import MAX_LINE_BYTES, BadRow, InputRow, TextLines, UnreadableLineError

CSV_REASONS = (
    ("unexpected end", "a quote is opened and never closed"),
    ("field larger", "a quote is opened and never closed"),
    ("new-line character", "there is a carriage return outside quotes: lines end in LF or CR LF"),
)
"""Part of Python's sentence, and what it means to the owner of the file."""


def read_csv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a comma-separated table."""
    return _read_table(stream, ",")


def read_tsv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a tab-separated table."""
    return _read_table(stream, "\t")


def find_repeated_column(names: Sequence[str]) -> str | None:
    """Return what is wrong with the names of the columns, if anything is."""
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        return f"has the column `{repeated[0]}` twice"
    return None if names else "names no column"


def _read_table(stream: BinaryIO, delimiter: str) -> Iterator[InputRow | BadRow]:
    """Yield rows; an empty cell counts as absent, and so does a column without a name, as pandas writes one for its index."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # of the whole process; 128 KiB by default
    # Strict: Python would else take a stray quote for text, and every row behind it for one cell.
    lines = TextLines(stream)
    rows = _read_cells(lines, csv.reader(lines, delimiter=delimiter, strict=True))
    line, head = next(rows, (0, None))
    if head is None:
        return
    if isinstance(head, str):
        yield BadRow(line, f"the columns cannot be named: {head}")
        return
    names = [name.strip() for name in head]
    if reason := find_repeated_column([name for name in names if name]):
        yield BadRow(line, reason)
        return
    for line, cells in rows:
        if isinstance(cells, str):
            yield BadRow(line, cells)
        elif len(cells) > len(names):
            yield BadRow(line, f"has {len(cells)} cells, and there are {len(names)} columns: a cell with a comma needs quotes")
        elif values := {name: cell for name, cell in zip(names, cells, strict=False) if cell and name}:
            yield InputRow(line, values)


def _read_cells(lines: TextLines, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each row's first line, with its cells or with what is wrong."""
    while True:
        line = lines.count + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except UnreadableLineError as error:
            yield lines.count, str(error)
        except csv.Error as error:
            yield line, f"is not valid CSV: {next((ours for theirs, ours in CSV_REASONS if theirs in str(error)), error)}"
        else:
            if cells:
                yield line, cells
