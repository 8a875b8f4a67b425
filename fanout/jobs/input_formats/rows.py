"""Rows of an input, good and bad, and the lines that the text formats read them from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fanout.core.given_text import BYTE_ORDER_MARK

MAX_ROW_BYTES = 8 * 2**20
"""Of one row, whatever its format, also of its prompt: what a file without line ends may take of the memory."""
MAX_COLUMNS = 10_000
"""Names of one row."""
MAX_EMPTY_LINES = 100_000
"""Of one file: they make no row that could be counted."""
MAX_NAME_CHARS = 64
"""Characters of a foreign name that a fault shows."""


@dataclass(frozen=True, slots=True)
class InputRow:
    """A line that could be read."""

    line: int
    """The line of the file on which it begins, from 1; in Parquet the number of the row."""
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class UnusableValue:
    """A value that JSON cannot hold: a fault of its row where something uses it, else left out."""

    reason: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be read."""

    line: int
    reason: str


class UnreadableLineError(Exception):
    """A line that cannot be read, and why.

    It passes through `csv`, which then forgets what it had begun and continues with the next line.
    """


class EndlessRowError(UnreadableLineError):
    """A row of several lines that is too long: most often one whose quote is never closed."""


class UnreadableInputError(OSError):
    """An input that cannot be read any further, and why."""


class TextLines:
    """The lines of a stream as text, ends included, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        """Lines taken so far."""
        self._row_bytes = self._empty = 0

    def begin_row(self) -> None:
        """Count the bytes of a new row, which may have several lines."""
        self._row_bytes = 0

    def skip_empty(self) -> None:
        """Count a line that makes no row."""
        self._empty += 1
        if self._empty > MAX_EMPTY_LINES:
            raise UnreadableInputError(f"more than {MAX_EMPTY_LINES:,} lines are empty")

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        # Bounded: a file without line ends would be read into memory whole. One byte more shows that a line is too long.
        raw = self._stream.readline(MAX_ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        self.count += 1
        self._row_bytes += len(raw)
        if self._row_bytes > MAX_ROW_BYTES:
            is_one_line = self._row_bytes == len(raw)
            while raw and not raw.endswith(b"\n"):  # skipped piece by piece, so that the next line is read as one
                raw = self._stream.readline(MAX_ROW_BYTES)
            raise UnreadableLineError(TOO_LONG) if is_one_line else EndlessRowError(TOO_LONG)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            hint = "; it looks like UTF-16: save the file as UTF-8" if b"\0" in raw else ""
            raise UnreadableLineError(f"is not UTF-8 from byte {error.start + 1} on{hint}") from None
        # Excel writes the mark, and the first column would bear it in its name.
        return text.removeprefix(BYTE_ORDER_MARK) if self.count == 1 else text


TOO_LONG = f"is longer than {MAX_ROW_BYTES // 2**20} MiB"


def find_repeated_name(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice, cut to what a fault can show; `None`: there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name[:MAX_NAME_CHARS]
        seen.add(name)
    return None


def find_column_fault(names: Sequence[str]) -> str | None:
    """Return what is wrong with the names of the columns, if anything is."""
    if len(names) > MAX_COLUMNS:
        return f"has {len(names):,} columns: at most {MAX_COLUMNS:,} are allowed"
    if repeated := find_repeated_name(names):
        return f"has the column `{repeated}` twice"
    return None if names else "names no column"
