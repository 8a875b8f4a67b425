"""A job's input, row by row: JSONL, CSV, TSV or Parquet, in memory that does not grow with the file.

A line that cannot be read is a `BadRow` among the others, so that every one of them can be named. All of this blocks: it
belongs in a thread.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from gzip import GzipFile
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from fanout.core.errors import RequestError
from fanout.core.faults import Fault

SUFFIXES: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
TYPED_FORMATS = frozenset({"jsonl"})
"""Formats in which a number is a number; elsewhere `"5"` may be one, and JSON may stand in a cell."""
MAX_LINE_BYTES = 8 * 2**20
"""Of one line, or one cell."""
PARQUET_BATCH_ROWS = 256
"""Rows of a Parquet file that are in memory together."""
MAX_NESTING = 64
"""Lists and objects within each other."""
GZIP = b"\x1f\x8b"
BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class InputRow:
    """What one line says."""

    line: int
    """The line of the file on which it begins, from 1; in Parquet the number of the row."""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be read."""

    line: int
    reason: str


def choose_format(name: str, asked: str | None = None) -> str:
    """The format of a file: the one asked for, else by its name; standard input, `-`, is JSONL.

    Raises:
        RequestError: neither says one of ours.
    """
    known = dict.fromkeys(SUFFIXES.values())
    if asked is not None:
        found = SUFFIXES.get(f".{asked.lower()}")
        if found is None:
            raise RequestError([Fault("format", f"`{asked}` is not allowed: {', '.join(known)}")])
        return found
    if name == "-":
        return "jsonl"
    lower = name.lower()
    found = SUFFIXES.get(Path(lower.removesuffix(".gz")).suffix)
    if found is None or (found == "parquet" and lower.endswith(".gz")):
        allowed = f"{', '.join(SUFFIXES)}, and the text ones also with .gz"
        raise RequestError([Fault("input", f"`{name}` has no known ending: {allowed}; or name the format")])
    return found


def read_rows(source: Path | BinaryIO, format: str | None = None) -> Iterator[InputRow | BadRow]:
    """Every row of an input, in order; empty lines are skipped. What is packed with gzip is unpacked.

    Args:
        source: a path (`-`: standard input), or an open stream, which stays open.
        format: `jsonl`, `csv`, `tsv` or `parquet`; by default by the path's ending, of a stream JSONL.

    Raises:
        RequestError: the file cannot be opened, is in no format of ours, or needs a package that is missing.
    """
    kind = choose_format(str(source) if isinstance(source, Path) else "-", format)
    if kind == "parquet":
        import_pyarrow()
    return _rows(source, kind)


def _rows(source: Path | BinaryIO, kind: str) -> Iterator[InputRow | BadRow]:
    read = {"jsonl": _json_rows, "csv": _csv_rows, "tsv": _tsv_rows, "parquet": _parquet_rows}[kind]
    line = 0
    with ExitStack() as stack:
        stream = _opened(source, stack, unpack=kind != "parquet")
        try:
            for row in read(stream):
                line = row.line
                yield row
        except (OSError, EOFError, zlib.error) as error:  # what gzip raises over a file that is broken off
            yield BadRow(line + 1, f"the file cannot be read from here on: {str(error)[:200]}")


def import_pyarrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`, which are only loaded where Parquet is read or written.

    Raises:
        RequestError: they are not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        sentence = "Parquet needs the package pyarrow: pip install 'fanout[parquet]'"
        raise RequestError([Fault("format", sentence, "not_installed")]) from None


def _opened(source: Path | BinaryIO, stack: ExitStack, *, unpack: bool) -> BinaryIO:
    if isinstance(source, Path) and str(source) != "-":
        try:
            stream: Any = stack.enter_context(source.open("rb"))
        except OSError as error:
            raise RequestError([Fault("input", f"`{source}` cannot be read: {error.strerror}")]) from None
    else:
        stream = sys.stdin.buffer if isinstance(source, Path) else source
    if not hasattr(stream, "peek"):
        stream = io.BufferedReader(stream)
        stack.callback(stream.detach)  # else it would close the caller's stream with itself
    if unpack and stream.peek(2)[:2] == GZIP:
        return stack.enter_context(GzipFile(fileobj=stream))  # type: ignore[return-value]
    return stream  # type: ignore[no-any-return]


# Lines


class _Unreadable(Exception):
    """Why a line is none. It passes through `csv`, which forgets what it had begun and goes on with the next line."""


class _Lines:
    """The lines of a stream as text, ends included, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        """Lines that were taken."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.count += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = self._stream.readline(MAX_LINE_BYTES)
            raise _Unreadable(f"is longer than {MAX_LINE_BYTES // 2**20} MiB")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            hint = "; it looks like UTF-16: save the file as UTF-8" if b"\0" in raw else ""
            raise _Unreadable(f"is not UTF-8 from byte {error.start + 1} on{hint}") from None
        return text.removeprefix(BOM) if self.count == 1 else text


# JSONL


def _json_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    lines = _Lines(stream)
    while True:
        try:
            if text := next(lines).rstrip():
                yield InputRow(lines.count, _object(text))
        except StopIteration:
            return
        except _Unreadable as error:
            yield BadRow(lines.count, str(error))


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _Unreadable(f"is not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _Unreadable("is nested too deeply") from None
    except ValueError as error:  # Python's own word on a number of thousands of digits
        raise _Unreadable(f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Unreadable("is not a JSON object: one object on each line is expected")
    if text.count("{") + text.count("[") > MAX_NESTING and _depth(value) > MAX_NESTING:
        raise _Unreadable("is nested too deeply")
    if "\\ud" in text or "\\uD" in text:
        _check_whole(value)
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. JSON lets a name stand twice, and readers differ in which of the two holds."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"has the name `{twice}` twice")
    return made


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Unreadable(f"holds the number {digits[:40]}, which is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise _Unreadable(f"is not valid JSON: `{constant}` is no number")


def _depth(value: Any) -> int:
    depth, layer = 0, [value]
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        depth += 1
        layer = [inner for outer in layer for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _check_whole(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Unreadable("holds half of a character: a `\\ud800` to `\\udfff` without its other half") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_float=_number, parse_constant=_refuse)


# CSV


CSV_FAULTS = (
    ("unexpected end", "a quote is opened and never closed"),
    ("field larger", "a quote is opened and never closed"),
    ("new-line character", "a carriage return stands outside quotes: lines end in LF or CR LF"),
)
"""What Python says, and what it means to whoever has the file."""


def _csv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    return _separated(stream, ",")


def _tsv_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    return _separated(stream, "\t")


def _separated(stream: BinaryIO, delimiter: str) -> Iterator[InputRow | BadRow]:
    """RFC 4180. An empty cell is as if absent, and so is a column without a name, as pandas writes one for its index."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # of the process; by default 128 KiB
    lines = _Lines(stream)
    cells = _cells(lines, csv.reader(lines, delimiter=delimiter, strict=True))
    head = next(cells, None)
    if head is None:
        return
    line, found = head
    names = [] if isinstance(found, str) else [name.strip() for name in found]
    if why := found if isinstance(found, str) else _twice([name for name in names if name]):
        yield BadRow(line, f"the columns cannot be named: {why}" if isinstance(found, str) else why)
        return
    for line, found in cells:
        if isinstance(found, str):
            yield BadRow(line, found)
        elif len(found) > len(names):
            yield BadRow(line, f"has {len(found)} cells, and there are {len(names)} columns: a cell with a comma needs quotes")
        elif values := {name: cell for name, cell in zip(names, found, strict=False) if cell and name}:
            yield InputRow(line, values)


def _cells(lines: _Lines, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Each row's first line, with its cells, or with what is wrong."""
    while True:
        line = lines.count + 1
        try:
            found = next(reader)
        except StopIteration:
            return
        except _Unreadable as error:
            yield lines.count, str(error)
        except csv.Error as error:
            yield line, f"is not valid CSV: {next((ours for theirs, ours in CSV_FAULTS if theirs in str(error)), error)}"
        else:
            if found:
                yield line, found


def _twice(names: Sequence[str]) -> str | None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        return f"has the column `{twice[0]}` twice"
    return None if names else "names no column"


# Parquet


def _parquet_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    pyarrow, parquet = import_pyarrow()
    with ExitStack() as stack:
        if not stream.seekable():  # its table of contents stands at its end
            spooled = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, spooled)
            stream = spooled
        try:
            file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)
        except pyarrow.ArrowException as error:
            raise RequestError([Fault("input", f"is not a Parquet file: {str(error)[:200]}")]) from None
        if why := _twice(file.schema_arrow.names):
            yield BadRow(1, why)
            return
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]  # pandas' own
        line = 0
        try:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
                for values in batch.to_pylist():
                    line += 1
                    yield _parquet_row(line, values)
        except ValueError as error:  # Arrow's own, and a time that no datetime holds
            yield BadRow(line + 1, f"the file cannot be read from here on: {str(error)[:200]}")


def _parquet_row(line: int, values: Mapping[str, Any]) -> InputRow | BadRow:
    try:
        return InputRow(line, {name: _plain(value, name) for name, value in values.items() if value is not None})
    except _Unreadable as error:
        return BadRow(line, str(error))


def _plain(value: Any, column: str) -> Any:
    """A value as JSON has it. Arrow writes what an object has not as a null, so that is taken out again."""
    if isinstance(value, dict):
        return {name: _plain(item, column) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, column) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unreadable(f"column `{column}` holds {value}, which JSON has not: leave it empty")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _Unreadable(f"column `{column}` holds bytes that are not UTF-8 text") from None
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return str(value)
    return value
