"""Standard output of results: a terminal is shown text, which steers it as little as any other text does."""

from __future__ import annotations

import codecs
import io
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from fanout.core.shown_text import to_safe_text


def find_results_output(output: str, file_format: str) -> Path | BinaryIO:
    """Return the file that a user has named; for `-` standard output.

    Raises:
        UsageError: it is a terminal, and the format is not text.
    """
    if output != "-":
        return Path(output)
    if not sys.stdout.isatty():
        return sys.stdout.buffer
    if file_format == "parquet":
        raise click.UsageError("Parquet is no text that a terminal could show: name a file, such as `-o results.parquet`")
    return cast(BinaryIO, TerminalOutput())


class TerminalOutput(io.RawIOBase):
    """Writes UTF-8 to the terminal, without what could steer it."""

    def __init__(self) -> None:
        # Pieces may end amid a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, content: Any) -> int:
        """Show some text."""
        data = bytes(content)
        sys.stdout.write(to_safe_text(self._decoder.decode(data)))
        return len(data)

    def flush(self) -> None:
        """Have the terminal show all of it."""
        sys.stdout.flush()
