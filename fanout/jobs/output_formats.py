"""Formats of a job's results: JSONL, CSV and Parquet, encoded piece by piece in memory that does not grow with them.

A record is flat: the names of `COLUMNS`, unknown values absent or `None`. In JSONL those are null, in CSV an empty cell, as an
empty text is there. Lists and objects are JSON within their cell, and themselves in JSONL. Texts are written as they are: a
spreadsheet may take an answer that begins with `=`, `+`, `-` or `@` for a formula, so import them as text.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.json_text import replace_surrogates
from fanout.core.units import to_rfc3339
from fanout.jobs.input_formats.parquet import import_pyarrow
from fanout.jobs.result_records import COLUMNS, ColumnKind, ResultRecord

ROW_GROUP_BYTES = 8 * 2**20
"""Arrow's memory after which a row group is written: what a reader, too, has to hold at least."""
ROW_GROUP_ROWS = 65_536


class RecordEncoder(Protocol):
    """Encoder of a file's records as they come. It only computes, but much: beside a loop it belongs in a thread."""

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        """Return the next bytes; none while Parquet still gathers a row group."""
        ...

    def close(self) -> bytes:
        """Return the last bytes."""
        ...


class _JsonlEncoder:
    """An object on each line, with every column."""

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        return b"".join(_to_json(_fill_columns(record)) + b"\n" for record in records)

    def close(self) -> bytes:
        return b""


class _CsvEncoder:
    """RFC 4180, with a line of names, in UTF-8."""

    def __init__(self) -> None:
        self._has_head = False

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        written = io.StringIO()
        writer = csv.writer(written)
        if not self._has_head:
            writer.writerow(COLUMNS)
            self._has_head = True
        for record in records:
            writer.writerow([_to_cell(value) for value in _fill_columns(record).values()])
        return _to_utf8(written.getvalue())

    def close(self) -> bytes:
        return self.encode(())


class _ParquetEncoder:
    """Columns of fixed types, in row groups of bounded size."""

    def __init__(self) -> None:
        pyarrow, parquet = import_pyarrow()
        types = {
            "text": pyarrow.string(),
            "whole": pyarrow.int64(),
            "number": pyarrow.float64(),
            "time": pyarrow.timestamp("ms", tz="UTC"),
        }
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._waiting: list[Any] = []
        self._bytes = self._rows = 0

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        if records:
            rows = [_check_names(record) for record in records]
            columns = [
                self._pyarrow.array([_to_typed(row.get(name), kind) for row in rows], self._schema.field(name).type)
                for name, kind in COLUMNS.items()
            ]
            # Types are fixed, not inferred: the columns of two files with the same names can always be put together.
            batch = self._pyarrow.record_batch(columns, schema=self._schema)
            self._waiting.append(batch)
            self._bytes += batch.nbytes
            self._rows += len(records)
        if self._bytes >= ROW_GROUP_BYTES or self._rows >= ROW_GROUP_ROWS:
            self._write_group()
        return self._sink.take()

    def close(self) -> bytes:
        self._write_group()
        self._writer.close()
        return self._sink.take()

    def _write_group(self) -> None:
        if self._waiting:
            table = self._pyarrow.Table.from_batches(self._waiting)
            self._waiting, self._bytes, self._rows = [], 0, 0
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


class _Sink(io.RawIOBase):
    """File object for Parquet that gives back what was written since the last call."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._before = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._before + len(self._written)

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._before += len(taken)
        self._written.clear()
        return taken


ENCODERS: Mapping[str, Callable[[], RecordEncoder]] = {"jsonl": _JsonlEncoder, "csv": _CsvEncoder, "parquet": _ParquetEncoder}


def _check_names(record: ResultRecord) -> ResultRecord:
    # Under a misspelt name a value would be lost without a word.
    if unknown := record.keys() - COLUMNS.keys():
        raise KeyError(f"no columns: {', '.join(sorted(unknown))}")
    return record


def _fill_columns(record: ResultRecord) -> dict[str, Any]:
    known = _check_names(record)
    return {name: to_rfc3339(known.get(name)) if kind == "time" else known.get(name) for name, kind in COLUMNS.items()}


def _to_cell(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _to_text(value) if isinstance(value, list | tuple | dict | bool) else value


def _to_typed(value: Any, kind: ColumnKind) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind == "text":
        return _to_utf8(_to_text(value)).decode()
    return datetime.fromtimestamp(value, UTC) if kind == "time" else value


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else _to_json(value).decode()


def _to_json(value: object) -> bytes:
    """Return a value as JSON. Lone surrogates become U+FFFD; NaN and infinity become null."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(replace_surrogates(value), inf_nan_mode="null")


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return str(replace_surrogates(text)).encode()
