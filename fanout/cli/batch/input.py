"""The input file of a job."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from fanout.jobs.input_files import SUFFIXES, TYPED_FORMATS, choose_format, read_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow


@dataclass(frozen=True, slots=True)
class JobInput:
    """An open input that can be read more than once."""

    stream: BinaryIO
    name: str
    format: str
    sha256: str

    def rows(self) -> Iterator[InputRow | BadRow]:
        """Return all rows, from the beginning; only one reader at a time."""
        self.stream.seek(0)
        return read_rows(self.stream, self.format)

    @property
    def is_typed(self) -> bool:
        """The format tells numbers from text."""
        return self.format in TYPED_FORMATS

    @property
    def identity(self) -> dict[str, str]:
        """Name and hash, stored with the job."""
        return {"name": self.name, "sha256": self.sha256}

    def find_endpoint(self) -> str | None:
        """Return the `url` of the first line of an OpenAI batch file; `None` if the input has rows of prompts."""
        if self.format != "jsonl":
            return None
        from fanout.jobs.row_request import is_request_line

        # Closed at once: `rows` allows one reader at a time.
        with closing(self.rows()) as found:  # type: ignore[type-var]  # a generator, declared as an iterator
            first = next(found, None)
        return str(first.values["url"]) if isinstance(first, InputRow) and is_request_line(first.values) else None

    @property
    def filename(self) -> str:
        """Name with a suffix that tells the format."""
        plain = self.name.removesuffix(".gz").lower()
        if any(plain.endswith(suffix) and format_ == self.format for suffix, format_ in SUFFIXES.items()):
            return self.name
        return f"{self.name}.{self.format}"


@contextmanager
def open_input(path: str, format_: str | None) -> Generator[JobInput]:
    """Open an input; a pipe, which can be read only once, is copied to an unnamed temporary file first."""
    kind = choose_format(path, format_)  # before reading: a wrong name should not wait for a long pipe
    with ExitStack() as stack:
        try:
            stream = _open_seekable(path, stack)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise click.UsageError(f"`{path}` cannot be read: {error.strerror}") from None
        yield JobInput(stream, "stdin" if path == "-" else Path(path).name, kind, sha256)


def _open_seekable(name: str, stack: ExitStack) -> BinaryIO:
    if name == "-":
        if not sys.stdin or sys.stdin.isatty():
            raise click.UsageError("standard input is a terminal: pipe the rows in, or name a file")
        source: BinaryIO = sys.stdin.buffer
    else:
        path = Path(name)
        source = stack.enter_context(path.open("rb"))
        if path.is_file():
            return source
    # Not read into memory: an input may have millions of rows.
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(source, copy)
    copy.seek(0)
    return copy
