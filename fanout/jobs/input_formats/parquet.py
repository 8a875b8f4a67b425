"""Rows of Parquet, a batch at a time."""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, time
from importlib import import_module
from typing import Any, BinaryIO

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.jobs.input_formats.rows import (
    MAX_ROW_BYTES,
    TOO_LONG,
    BadRow,
    InputRow,
    UnreadableLineError,
    UnusableValue,
    find_column_fault,
)
from fanout.jobs.loading import earn, spend

BATCH_ROWS = 256
"""Rows in memory together; fewer where they are long."""
CELL_BYTES = 8
"""What an empty cell takes."""


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
        earn(stream.seek(0, io.SEEK_END))
        stream.seek(0)
        try:
            file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)
            columns: list[str] = file.schema_arrow.names
            if reason := find_column_fault(columns):
                yield BadRow(1, reason)
                return
            # As dictionaries: a value that is written once and stands in a million rows is held once.
            texts = _list_text_columns(file.metadata)
            file = parquet.ParquetFile(stream, read_dictionary=texts, pre_buffer=False, buffer_size=2**20)
        except pyarrow.ArrowException as error:
            raise RequestError([Fault("input", f"is not a Parquet file: {str(error)[:200]}")]) from None
        yield from _read_batches(file, [name for name in columns if not name.startswith("__index_level_")])  # pandas' own


def _list_text_columns(metadata: Any) -> list[str]:
    """Return the paths of columns of text or bytes, those within lists and objects, too."""
    schema = metadata.schema
    leaves = (schema.column(number) for number in range(metadata.num_columns))
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def _read_batches(file: Any, columns: list[str]) -> Iterator[InputRow | BadRow]:
    line = 0
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    spend(sum(group.total_byte_size for group in groups))
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    batch_rows = min(max(MAX_ROW_BYTES // max(largest, 1), 1), BATCH_ROWS)
    try:
        for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
            for row in _to_rows(batch, line + 1):
                line = row.line
                yield row
    except ValueError as error:  # Arrow's own
        yield BadRow(line + 1, f"the file cannot be read from here on: {str(error)[:200]}")


def _to_rows(batch: Any, line: int) -> Iterator[InputRow | BadRow]:
    """Yield the rows of a batch; those of a long one, which a dictionary may make of a short file, one by one."""
    sizes = [_measure(column) for column in batch.columns]
    if sum(sizes) > MAX_ROW_BYTES and batch.num_rows > 1:
        for number in range(batch.num_rows):
            yield from _to_rows(batch.slice(number, 1), line + number)
        return
    cells = {
        name: _read_cells(column) if size <= MAX_ROW_BYTES else [UnusableValue(TOO_LONG)]
        for name, column, size in zip(batch.schema.names, batch.columns, sizes, strict=True)
    }
    used = sum(size for size, values in zip(sizes, cells.values(), strict=True) if not isinstance(values[0], UnusableValue))
    if used > MAX_ROW_BYTES:
        yield BadRow(line, TOO_LONG)
        return
    for number in range(batch.num_rows):
        found = ((name, values[number]) for name, values in cells.items())
        yield InputRow(line + number, {name: value for name, value in found if value is not None})


def _measure(array: Any) -> int:
    """Return the bytes that the values of an array take when they are written out, about."""
    pyarrow, _ = import_pyarrow()
    types, compute = pyarrow.types, import_module("pyarrow.compute")
    kind, overhead = array.type, CELL_BYTES * len(array)
    if types.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary)
        return overhead + (compute.sum(lengths.take(array.indices).cast("int64")).as_py() or 0)
    if types.is_struct(kind):
        return overhead + sum(map(_measure, array.flatten()))
    if types.is_map(kind):  # one without its keys' and items' own types is a list of pairs
        return overhead + _measure(
            array.cast(pyarrow.list_(pyarrow.struct([("key", kind.key_type), ("value", kind.item_type)])))
        )
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return overhead + _measure(array.flatten())
    return overhead + int(array.nbytes)


def _read_cells(column: Any) -> list[object]:
    spend(CELL_BYTES * len(column))  # a column of one value takes nearly nothing in the file, and as much time as any other
    return _to_cells(column)


def _to_cells(column: Any) -> list[object]:
    """Return the values of a column as JSON would have them."""
    pyarrow, _ = import_pyarrow()
    types, kind = pyarrow.types, column.type
    if (types.is_timestamp(kind) or types.is_time64(kind)) and kind.unit == "ns":
        shorter = pyarrow.timestamp("us", kind.tz) if types.is_timestamp(kind) else pyarrow.time64("us")
        try:  # Python's own times end at microseconds
            column = column.cast(shorter)
        except pyarrow.ArrowInvalid:
            return [value and value.replace(" ", "T", 1) for value in column.cast(pyarrow.string()).to_pylist()]
    return [_to_cell(scalar) for scalar in column]


def _to_cell(scalar: Any) -> object:
    try:
        return _to_json_value(scalar.as_py())
    except UnreadableLineError as error:
        return UnusableValue(str(error))
    except (ValueError, OverflowError):  # bytes that are no text in a column of text, a time that no datetime holds
        return UnusableValue("holds a value that cannot be read")


def _to_json_value(value: object) -> object:
    """Return a value as JSON would have it."""
    if isinstance(value, dict):
        # Arrow writes a null for each field that other objects of the column have, and this one has not.
        return {name: _to_json_value(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableLineError(f"holds {value}, which JSON does not allow: leave it empty")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UnreadableLineError("holds bytes that are not UTF-8 text") from None
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float) else str(value)
