"""A job's results as a file: JSONL, CSV or Parquet, written piece by piece in memory that does not grow with them.

A record is flat: the names of `COLUMNS`, what is unknown absent or `None`. In JSONL that is null, in CSV an empty cell, as an
empty text is there. What is neither text nor number is JSON within its cell, and itself in JSONL. Texts are written as they
are: in a spreadsheet an answer that begins with `=`, `+`, `-` or `@` may be taken for a formula, so import them as text.
"""

from __future__ import annotations

import csv
import io
import math
import os
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.json_text import whole_text
from fanout.core.units import to_rfc3339
from fanout.jobs.input_files import import_pyarrow

ColumnKind = Literal["text", "whole", "number", "time"]
COLUMNS: Mapping[str, ColumnKind] = {
    "item": "whole",
    "line": "whole",
    "custom_id": "text",
    "entry": "whole",
    "repeat": "whole",
    "model": "text",
    "label": "text",
    "provider": "text",
    "upstream_model": "text",
    "prompt": "text",  # or a row's messages
    "reference": "text",
    "text": "text",
    "reasoning": "text",
    "tool_calls": "text",
    "finish_reason": "text",
    "native_finish_reason": "text",
    "prompt_tokens": "whole",
    "completion_tokens": "whole",
    "total_tokens": "whole",
    "cached_tokens": "whole",
    "queued_ms": "whole",
    "ttft_ms": "whole",
    "prediction_time_ms": "whole",
    "total_ms": "whole",
    "attempts": "whole",
    "tokens_per_second": "number",
    "cost_usd": "number",
    "cost_source": "text",
    "ignored_parameters": "text",
    "adjusted_parameters": "text",
    "error_kind": "text",
    "error_code": "text",
    "error_message": "text",
    "request_id": "text",
    "cached_from": "text",
    "ended": "time",  # in a record Unix seconds
    "values": "text",
}
SUFFIXES: Mapping[str, str] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
GROUP_BYTES = 8 * 2**20
"""Of Arrow's memory, about how much becomes a row group of its own: what a reader, too, has to hold at least."""
GROUP_ROWS = 65_536
ResultRecord = Mapping[str, Any]


class RecordEncoder(Protocol):
    """Makes a file's bytes of records, as they come. It only computes, but much: beside a loop it belongs in a thread."""

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        """The next bytes; none as long as Parquet still gathers a row group."""
        ...

    def close(self) -> bytes:
        """The last bytes."""
        ...


class RecordWriter:
    """Writes records to an open file."""

    def __init__(self, stream: BinaryIO, made: RecordEncoder) -> None:
        self._stream, self._encoder = stream, made

    def write(self, records: Sequence[ResultRecord]) -> None:
        """
        Raises:
            RequestError: the file cannot be written (any more).
        """
        written = self._encoder.encode(records)
        with _told("the file"):
            self._stream.write(written)

    def close(self) -> None:
        """Writes the end; the stream stays open.

        Raises:
            RequestError: the file cannot be written (any more).
        """
        written = self._encoder.close()
        with _told("the file"):
            self._stream.write(written)
            self._stream.flush()


@contextmanager
def _told(what: str) -> Generator[None]:
    """A failure of the system as ours. A reader of our output who has left is none: that is for whoever opened it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RequestError([Fault("output", f"{what} cannot be written: {error.strerror}")]) from None


def choose_format(name: str, asked: str | None = None) -> str:
    """The format of a file of results: the one asked for, else by its name; standard output, `-`, is JSONL.

    Raises:
        RequestError: neither says one of ours.
    """
    if asked is None and name == "-":
        return "jsonl"
    found = SUFFIXES.get(Path(name.lower()).suffix if asked is None else f".{asked.lower()}")
    if found is None and asked is None:
        raise RequestError([Fault("output", f"`{name}` has no known ending: {', '.join(SUFFIXES)}; or name the format")])
    if found is None:
        raise RequestError([Fault("format", f"`{asked}` is not allowed: {', '.join(dict.fromkeys(SUFFIXES.values()))}")])
    return found


def make_encoder(format: str) -> RecordEncoder:
    """An encoder of a format.

    Raises:
        RequestError: the format is none of ours, or is Parquet and pyarrow is missing.
    """
    makers: Mapping[str, Callable[[], RecordEncoder]] = {"jsonl": _Jsonl, "csv": _Csv, "parquet": _Parquet}
    return makers[choose_format("-", format)]()


@contextmanager
def open_writer(target: Path | BinaryIO, format: str | None = None) -> Generator[RecordWriter]:
    """A writer to a file, or to a stream, which stays open.

    A file is written under another name beside its own, which it gets at the end: no half file ever stands under it, and one
    that stood there stays until then. A failure removes what was written.

    Args:
        format: `jsonl`, `csv` or `parquet`; by default by the path's ending, of a stream JSONL.

    Raises:
        RequestError: it cannot be written there, or not in that format.
    """
    made = make_encoder(choose_format(str(target) if isinstance(target, Path) else "-", format))
    if not isinstance(target, Path):
        writer = RecordWriter(target, made)
        yield writer
        writer.close()
        return
    with replace_file(target) as stream:
        writer = RecordWriter(stream, made)
        yield writer
        writer.close()


@contextmanager
def replace_file(path: Path) -> Generator[BinaryIO]:
    """A file to write, which gets that name at the end; a failure removes it.

    Raises:
        RequestError: it cannot be written there.
    """
    path = path.resolve()  # of a link, what it points to
    direct = path.exists() and not path.is_file()  # a device or a pipe keeps its name
    beside = path if direct else path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    with _told(f"`{path}`"):
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        stream = beside.open("wb" if direct else "xb")
    try:
        yield stream
        with _told(f"`{path}`"):
            if not direct:
                os.fsync(stream.fileno())
            stream.close()
            if not direct:
                beside.replace(path)
    except BaseException:
        with suppress(OSError):  # what could not be written before cannot be now
            stream.close()
        if not direct:
            beside.unlink(missing_ok=True)
        raise


class _Jsonl:
    """An object on each line, with every column."""

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        return b"".join(_json(_whole(record)) + b"\n" for record in records)

    def close(self) -> bytes:
        return b""


class _Csv:
    """RFC 4180, with a line of names, in UTF-8."""

    def __init__(self) -> None:
        self._headed = False

    def encode(self, records: Sequence[ResultRecord]) -> bytes:
        written = io.StringIO()
        writer = csv.writer(written)
        if not self._headed:
            writer.writerow(COLUMNS)
            self._headed = True
        for record in records:
            writer.writerow([_cell(value) for value in _whole(record).values()])
        return _utf8(written.getvalue())

    def close(self) -> bytes:
        return self.encode(())


class _Parquet:
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
            rows = [_checked(record) for record in records]
            columns = [
                self._pyarrow.array([_typed(row.get(name), kind) for row in rows], self._schema.field(name).type)
                for name, kind in COLUMNS.items()
            ]
            batch = self._pyarrow.record_batch(columns, schema=self._schema)
            self._waiting.append(batch)
            self._bytes += batch.nbytes
            self._rows += len(records)
        if self._bytes >= GROUP_BYTES or self._rows >= GROUP_ROWS:
            self._write_group()
        return self._sink.taken()

    def close(self) -> bytes:
        self._write_group()
        self._writer.close()
        return self._sink.taken()

    def _write_group(self) -> None:
        if self._waiting:
            table = self._pyarrow.Table.from_batches(self._waiting)
            self._waiting, self._bytes, self._rows = [], 0, 0
            self._writer.write_table(table, row_group_size=GROUP_ROWS)


class _Sink(io.RawIOBase):
    """What Parquet writes into: gives back what was written since it was last asked."""

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

    def taken(self) -> bytes:
        taken = bytes(self._written)
        self._before += len(taken)
        self._written.clear()
        return taken


def _checked(record: ResultRecord) -> ResultRecord:
    """A record under a misspelt name would be lost without a word.

    Raises:
        KeyError: a name that is no column.
    """
    if unknown := record.keys() - COLUMNS.keys():
        raise KeyError(f"no columns: {', '.join(sorted(unknown))}")
    return record


def _whole(record: ResultRecord) -> dict[str, Any]:
    """Every column, in order."""
    known = _checked(record)
    return {name: to_rfc3339(known.get(name)) if kind == "time" else known.get(name) for name, kind in COLUMNS.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _text(value) if isinstance(value, list | tuple | dict | bool) else value


def _typed(value: Any, kind: ColumnKind) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind == "text":
        return _utf8(_text(value)).decode()
    return datetime.fromtimestamp(value, UTC) if kind == "time" else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value).decode()


def _json(value: Any) -> bytes:
    """Whatever upstreams put into it: a number that is none is null, half a character U+FFFD."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(whole_text(value), inf_nan_mode="null")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return str(whole_text(text)).encode()
