"""Rows of an input, good and bad, and the lines that the text formats read them from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

MAX_LINE_BYTES = 8 * 2**20
"""Of one line, or one cell: what a file without line ends may take of the memory."""
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class InputRow:
    """A line that could be read."""

    line: int
    """The line of the file on which it begins, from 1; in Parquet the number of the row."""
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be read."""

    line: int
    reason: str


class UnreadableLineError(Exception):
    """A line that cannot be read, and why.

    It passes through `csv`, which then forgets what it had begun and continues with the next line.
    """


class TextLines:
    """The lines of a stream as text, ends included, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        """Lines taken so far."""

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.count += 1
        if len(raw) > MAX_LINE_BYTES:  # skipped piece by piece, so that the next line is read as one
            while raw and not raw.endswith(b"\n"):
                raw = self._stream.readline(MAX_LINE_BYTES)
            raise UnreadableLineError(f"is longer than {MAX_LINE_BYTES // 2**20} MiB")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            hint = "; it looks like UTF-16: save the file as UTF-8" if b"\0" in raw else ""
            raise UnreadableLineError(f"is not UTF-8 from byte {error.start + 1} on{hint}") from None
        return text.removeprefix(BYTE_ORDER_MARK) if self.count == 1 else text


def find_repeated_column(names: Sequence[str]) -> str | None:
    """Return what is wrong with the names of the columns, if anything is."""
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        return f"has the column `{repeated[0]}` twice"
    return None if names else "names no column"
