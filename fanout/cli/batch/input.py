"""The input of a job, opened: its name, its SHA-256, its format, and what its first row looks like."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from fanout.jobs.input_files import SUFFIXES, TYPED_FORMATS, BadRow, InputRow, choose_format, read_rows
from fanout.jobs.row_request import is_request_line


@dataclass(frozen=True, slots=True)
class Input:
    """An open input, which can be read again and again."""

    stream: BinaryIO
    name: str
    format: str
    sha256: str

    def rows(self) -> Iterator[InputRow | BadRow]:
        """Every row, from the beginning; one reader at a time."""
        self.stream.seek(0)
        return read_rows(self.stream, self.format)

    @property
    def typed(self) -> bool:
        return self.format in TYPED_FORMATS

    @property
    def about(self) -> dict[str, Any]:
        """What a job keeps of it."""
        return {"name": self.name, "sha256": self.sha256}

    def endpoint(self) -> str | None:
        """Where the lines of a batch of OpenAI's would have been sent, by the first one; `None`: these are rows of prompts."""
        if self.format != "jsonl":
            return None
        with closing(self.rows()) as found:  # type: ignore[type-var]
            first = next(found, None)
        return str(first.values["url"]) if isinstance(first, InputRow) and is_request_line(first.values) else None

    @property
    def filename(self) -> str:
        """With an ending that tells its format."""
        plain = self.name.removesuffix(".gz").lower()
        if any(plain.endswith(suffix) and format_ == self.format for suffix, format_ in SUFFIXES.items()):
            return self.name
        return f"{self.name}.{self.format}"


@contextmanager
def open_input(given: str, format_: str | None) -> Generator[Input]:
    """Opens an input; what cannot be read twice, as a pipe, is first copied to a file without a name.

    Raises:
        RequestError: its format is none of ours.
        UsageError: it cannot be read.
    """
    kind = choose_format(given, format_)
    with ExitStack() as stack:
        try:
            stream: Any = _opened(given, stack)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise click.UsageError(f"`{given}` cannot be read: {error.strerror}") from None
        yield Input(stream, "stdin" if given == "-" else Path(given).name, kind, sha256)


def _opened(given: str, stack: ExitStack) -> BinaryIO:
    if given == "-":
        if not sys.stdin or sys.stdin.isatty():
            raise click.UsageError("standard input is a terminal: pipe the rows in, or name a file")
        source: BinaryIO = sys.stdin.buffer
    else:
        path = Path(given)
        source = stack.enter_context(path.open("rb"))
        if path.is_file():
            return source
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(source, copy)
    copy.seek(0)
    return copy
