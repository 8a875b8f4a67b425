"""Rows of JSONL, CSV, TSV and plain text, read stricter than by Python's own readers, which let ambiguous ones pass."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn

from fanout.core.json_text import JsonObject
from fanout.core.json_values import MAX_VALUES, has_too_many_values
from fanout.jobs.input_formats.rows import (
    MAX_ROW_BYTES,
    BadRow,
    EndlessRowError,
    InputRow,
    TextLines,
    UnreadableLineError,
    find_column_fault,
    find_repeated_name,
)

MAX_NESTING = 64
"""Lists and objects within each other; what recurses over them later must not fail."""
CSV_REASONS = (
    ("unexpected end", "a quote is opened and never closed"),
    ("field larger", "a quote is opened and never closed"),
    ("new-line character", "there is a carriage return outside quotes: lines end in LF or CR LF"),
)
"""Part of Python's sentence, and what it means to the owner of the file."""


def read_json_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the row of each line; empty lines are skipped."""
    return _read_lines(stream, lambda text: _parse_object(text.rstrip()))


def read_text_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield each line as a prompt; empty lines are skipped."""
    return _read_lines(stream, lambda text: {"prompt": text.rstrip("\r\n")})


def _read_lines(stream: BinaryIO, parse: Callable[[str], JsonObject]) -> Iterator[InputRow | BadRow]:
    lines = TextLines(stream)
    while True:
        try:
            lines.begin_row()
            text = next(lines)
            if text.isspace() or not text:
                lines.skip_empty()
            else:
                yield InputRow(lines.count, parse(text))
        except StopIteration:
            return
        except UnreadableLineError as error:
            yield BadRow(lines.count, str(error))


def _parse_object(text: str) -> JsonObject:
    if has_too_many_values(text):
        raise UnreadableLineError(f"holds more than {MAX_VALUES:,} values")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableLineError(f"is not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise UnreadableLineError("is nested too deeply") from None
    except ValueError as error:  # Python's own sentence on a number of thousands of digits
        raise UnreadableLineError(f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnreadableLineError("is not a JSON object: one object on each line is expected")
    if text.count("{") + text.count("[") > MAX_NESTING and _depth(value) > MAX_NESTING:
        raise UnreadableLineError("is nested too deeply")
    # No database and no upstream takes half a character; found here it costs one line, later a whole job.
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def _make_object(pairs: list[tuple[str, object]]) -> JsonObject:
    # JSON lets a name stand twice, and readers differ in which of the two holds.
    made = dict(pairs)
    if len(made) < len(pairs):
        raise UnreadableLineError(f"has the name `{find_repeated_name(name for name, _ in pairs)}` twice")
    return made


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UnreadableLineError(f"holds the number {digits[:40]}, which is too large")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise UnreadableLineError(f"is not valid JSON: `{constant}` is not allowed as a number")


def _depth(value: object) -> int:
    depth, layer = 0, [value]
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        depth += 1
        layer = [inner for outer in layer for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableLineError("holds half of a character: a `\\ud800` to `\\udfff` without its other half") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_make_object, parse_float=_parse_float, parse_constant=_refuse_constant)


def read_csv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a comma-separated table."""
    return _read_table(stream, ",")


def read_tsv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a tab-separated table."""
    return _read_table(stream, "\t")


def _read_table(stream: BinaryIO, delimiter: str) -> Iterator[InputRow | BadRow]:
    """Yield rows; an empty cell counts as absent, and so does a column without a name, as pandas writes one for its index."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # of the whole process; 128 KiB by default
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
    if reason := find_column_fault([name for name in names if name]):
        yield BadRow(line, reason)
        return
    for line, cells in rows:
        if isinstance(cells, str):
            yield BadRow(line, cells)
        elif any(cells[len(names) :]):  # further cells that are empty are what some spreadsheets leave behind
            yield BadRow(line, f"has {len(cells)} cells, and there are {len(names)} columns: a cell with a comma needs quotes")
        elif values := {name: cell for name, cell in zip(names, cells, strict=False) if cell and name}:
            yield InputRow(line, values)
        else:
            lines.skip_empty()


def _read_cells(lines: TextLines, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each row's first line, with its cells or with what is wrong."""
    while True:
        line = lines.count + 1
        lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except EndlessRowError as error:
            yield line, f"{error}, or a quote is opened and never closed"
        except UnreadableLineError as error:
            yield lines.count, str(error)
        except csv.Error as error:
            yield line, f"is not valid CSV: {next((ours for theirs, ours in CSV_REASONS if theirs in str(error)), error)}"
        else:
            if cells:
                yield line, cells
            else:
                lines.skip_empty()
