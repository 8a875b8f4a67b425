"""Rows of Parquet, a batch at a time."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import date, time, timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any, BinaryIO

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.jobs.input_formats.rows import BadRow, InputRow, UnreadableLineError, find_repeated_column

BATCH_ROWS = 256
"""Rows in memory together."""


def import_pyarrow() -> tuple[Any, Any]:
    """Return `pyarrow` and `pyarrow.parquet`, or raise `RequestError` where they are not installed."""
    # Only where Parquet is read or written: loading them takes 0.4 s (2026-11-27).
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        sentence = f"Parquet needs {explain_missing_extra('pyarrow', 'parquet')}"
        raise RequestError([Fault("format", sentence, "not_installed")]) from None


def read_parquet_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a Parquet file, or raise `RequestError` where it is none."""
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
        columns: list[str] = file.schema_arrow.names
        if reason := find_repeated_column(columns):
            yield BadRow(1, reason)
            return
        yield from _read_batches(file, [name for name in columns if not name.startswith("__index_level_")])  # pandas' own


def _read_batches(file: Any, columns: list[str]) -> Iterator[InputRow | BadRow]:
    line = 0
    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            for values in batch.to_pylist():
                line += 1
                yield _to_row(line, values)
    except ValueError as error:  # Arrow's own, and a time that no datetime holds
        yield BadRow(line + 1, f"the file cannot be read from here on: {str(error)[:200]}")


def _to_row(line: int, values: Mapping[str, object]) -> InputRow | BadRow:
    try:
        return InputRow(line, {name: _to_json_value(value, name) for name, value in values.items() if value is not None})
    except UnreadableLineError as error:
        return BadRow(line, str(error))


def _to_json_value(value: object, column: str) -> object:
    """Return a value as JSON would have it."""
    if isinstance(value, dict):
        # Arrow writes a null for each field that other objects of the column have, and this one has not.
        return {name: _to_json_value(item, column) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_to_json_value(item, column) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableLineError(f"column `{column}` holds {value}, which JSON does not allow: leave it empty")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UnreadableLineError(f"column `{column}` holds bytes that are not UTF-8 text") from None
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return str(value)
    return value
