"""Input files of jobs, row by row, in memory that does not grow with the file.

A line that cannot be read is a `BadRow` among the others, so that each of them can be reported. All of this blocks: it
belongs in a thread.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from gzip import GzipFile
from pathlib import Path
from typing import Any, BinaryIO

from fanout.core.errors import Fault, RequestError
from fanout.jobs.input_formats.parquet import import_pyarrow, read_parquet_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.input_formats.text import read_csv_rows, read_json_rows, read_text_rows, read_tsv_rows
from fanout.jobs.loading import CountedStream, earn, spend

SUFFIXES: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".parquet": "parquet",
}
TYPED_FORMATS = frozenset({"jsonl"})
"""Formats in which a number is a number; in the others `"5"` may be one, and a cell may hold JSON."""
READERS = {
    "jsonl": read_json_rows,
    "csv": read_csv_rows,
    "tsv": read_tsv_rows,
    "txt": read_text_rows,
    "parquet": read_parquet_rows,
}
GZIP_MAGIC = b"\x1f\x8b"


def choose_format(name: str, requested: str | None = None) -> str:
    """Return the format of a file: the requested one, else by its name; standard input, `-`, is JSONL."""
    if requested is not None:
        found = SUFFIXES.get(f".{requested.lower()}")
        if found is None:
            raise RequestError([Fault("format", f"`{requested}` is not allowed: {', '.join(READERS)}")])
        return found
    if name == "-":
        return "jsonl"
    lower = name.lower()
    found = SUFFIXES.get(Path(lower.removesuffix(".gz")).suffix)
    if found is None or (found == "parquet" and lower.endswith(".gz")):
        allowed = f"{', '.join(SUFFIXES)}, and the text ones also with .gz"
        raise RequestError([Fault("input", f"`{name}` has no known ending: {allowed}; or name the format")])
    return found


def read_rows(source: Path | BinaryIO, file_format: str | None = None) -> Iterator[InputRow | BadRow]:
    """Yield every row of an input in order, without empty lines. Gzip is recognized and unpacked; a stream stays open.

    Raises:
        RequestError: the file cannot be opened, has no known format, or needs a package that is missing.
    """
    file_format = choose_format(str(source) if isinstance(source, Path) else "-", file_format)
    if file_format == "parquet":
        import_pyarrow()  # here, not at the first row: a missing package is found before the job is begun
    return _read_rows(source, file_format)


def bound_rows(rows: Iterable[InputRow | BadRow], most: int) -> Iterator[InputRow | BadRow]:
    """Yield rows; raise `RequestError` at the first one beyond those that the quota of a key allows."""
    for number, row in enumerate(rows):
        if number >= most:
            sentence = f"the input has more rows than the {most} that the quota of this key leaves (`max_rows`)"
            raise RequestError([Fault("", sentence, "quota_exceeded")])
        yield row


def _read_rows(source: Path | BinaryIO, file_format: str) -> Iterator[InputRow | BadRow]:
    line = 0
    with ExitStack() as stack:
        stream = _open(source, stack, unpack=file_format != "parquet")
        try:
            for row in READERS[file_format](stream):
                line = row.line
                spend(rows=1)
                yield row
        except (OSError, EOFError, zlib.error) as error:  # what gzip raises over a truncated file
            yield BadRow(line + 1, f"the file cannot be read from here on: {str(error)[:200]}")


def _buffer(stream: Any, stack: ExitStack) -> BinaryIO:
    if not hasattr(stream, "peek"):
        stream = io.BufferedReader(stream)
        stack.callback(stream.detach)  # else it would close the caller's stream with itself
    return stream  # type: ignore[no-any-return]


def _open(source: Path | BinaryIO, stack: ExitStack, *, unpack: bool) -> BinaryIO:
    if isinstance(source, Path) and str(source) != "-":
        try:
            stream: Any = stack.enter_context(source.open("rb"))
        except OSError as error:
            raise RequestError([Fault("input", f"`{source}` cannot be read: {error.strerror}")]) from None
    else:
        stream = sys.stdin.buffer if isinstance(source, Path) else source
    if not unpack:
        return _buffer(stream, stack)
    file = io.BufferedReader(CountedStream(stream, earn))
    if file.peek(2)[:2] == GZIP_MAGIC:
        return io.BufferedReader(CountedStream(stack.enter_context(GzipFile(fileobj=file)), spend))  # type: ignore[arg-type]
    return file
