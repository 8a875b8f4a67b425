"""Formats of a job's results: JSONL, CSV and Parquet, encoded piece by piece in memory that does not grow with them.

A record is flat: the names of `COLUMNS`, unknown values absent or `None`. In JSONL those are null, in CSV an empty cell, as an
empty text is there. Lists and objects are JSON within their cell, and themselves in JSONL. No record can fail an export: a
value that its column cannot hold is unknown. Texts of CSV are written as they are, or with their formulas quoted.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.json_text import replace_surrogates
from fanout.core.units import to_rfc3339
from fanout.jobs.input_formats.parquet import import_pyarrow
from fanout.jobs.result_records import COLUMNS, ColumnKind, ResultRecord

ROW_GROUP_BYTES = 8 * 2**20
"""Arrow's memory after which a row group is written: what a reader, too, has to hold at least."""
ROW_GROUP_ROWS = 65_536


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Characters by which spreadsheets know a formula."""
BOUNDS: Mapping[ColumnKind, tuple[float, float]] = {
    "whole": (-(2**63), 2**63 - 1),
    "number": (-sys.float_info.max, sys.float_info.max),
    "time": (0, 253_402_300_799),  # the end of the year 9999
}
"""What a column holds."""


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
        return b"".join(_to_json(fill_columns(record)) + b"\n" for record in records)

    def close(self) -> bytes:
        return b""


class CsvEncoder:
    """RFC 4180, with a line of names, in UTF-8."""

    def __init__(self, *, quote_formulas: bool = False) -> None:
        self._quote_formulas = quote_formulas
        self._has_head = False

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        written = io.StringIO()
        writer = csv.writer(written)
        if not self._has_head:
            writer.writerow(COLUMNS)
            self._has_head = True
        for record in records:
            writer.writerow([self._to_cell(value) for value in fill_columns(record).values()])
        return _to_utf8(written.getvalue())

    def _to_cell(self, value: object) -> object:
        cell = _to_text(value) if isinstance(value, list | tuple | dict | bool) else value
        # A spreadsheet shows the apostrophe's text; without it, it computes what a model wrote.
        # Source: https://owasp.org/www-community/attacks/CSV_Injection
        is_formula = self._quote_formulas and isinstance(cell, str) and cell.startswith(FORMULA_STARTS)
        return f"'{cell}" if is_formula else cell

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
            rows = [fill_columns(record) for record in records]
            columns = [
                self._pyarrow.array([_to_typed_value(row[name], kind) for row in rows], self._schema.field(name).type)
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


ENCODERS: Mapping[str, Callable[[], RecordEncoder]] = {"jsonl": _JsonlEncoder, "csv": CsvEncoder, "parquet": _ParquetEncoder}


def fill_columns(record: ResultRecord) -> dict[str, Any]:
    """Return a value for each column; unknown ones, and those that the column cannot hold, are `None`."""
    # Under a misspelt name a value would be lost without a word.
    if unknown := record.keys() - COLUMNS.keys():
        raise KeyError(f"no columns: {', '.join(sorted(unknown))}")
    return {name: _fit(record.get(name), kind) for name, kind in COLUMNS.items()}


def _fit(value: Any, kind: ColumnKind) -> object:
    if kind == "text" or value is None:
        return value
    least, most = BOUNDS[kind]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return None
    if kind == "time":
        return to_rfc3339(value)
    return value if kind == "number" or isinstance(value, int) else None


def _to_typed_value(value: Any, kind: ColumnKind) -> object:
    if value is None:
        return None
    if kind == "text":
        return _to_utf8(_to_text(value)).decode()
    return datetime.fromisoformat(value) if kind == "time" else value


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
