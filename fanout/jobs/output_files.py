"""Output files of jobs: written whole or not at all, in memory that does not grow with them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from fanout.core.errors import Fault, RequestError
from fanout.jobs.output_formats import ENCODERS, RecordEncoder
from fanout.jobs.result_records import ResultRecord

SUFFIXES: Mapping[str, str] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class RecordWriter:
    """Writer of records to an open file."""

    def __init__(self, stream: BinaryIO, encoder: RecordEncoder) -> None:
        self._stream, self._encoder = stream, encoder

    def write(self, records: Sequence[ResultRecord]) -> None:
        """Write more records, or raise `RequestError` where the file cannot be written any more."""
        self._write(self._encoder.encode(records))

    def close(self) -> None:
        """Write the end; the stream stays open."""
        self._write(self._encoder.close())
        with _report_failures("the file"):
            self._stream.flush()

    def _write(self, encoded: bytes) -> None:
        with _report_failures("the file"):
            self._stream.write(encoded)


def choose_format(name: str, requested: str | None = None) -> str:
    """Return the format of a file of results: the requested one, else by its name; standard output, `-`, is JSONL."""
    if requested is None and name == "-":
        return "jsonl"
    found = SUFFIXES.get(Path(name.lower()).suffix if requested is None else f".{requested.lower()}")
    if found is None and requested is None:
        raise RequestError([Fault("output", f"`{name}` has no known ending: {', '.join(SUFFIXES)}; or name the format")])
    if found is None:
        raise RequestError([Fault("format", f"`{requested}` is not allowed: {', '.join(ENCODERS)}")])
    return found


def make_encoder(file_format: str) -> RecordEncoder:
    """Return an encoder of a format, or raise `RequestError` where it is not known, or is Parquet and pyarrow is missing."""
    return ENCODERS[choose_format("-", file_format)]()


@contextmanager
def open_writer(target: Path | BinaryIO, file_format: str | None = None) -> Generator[RecordWriter]:
    """Open a writer to a file, by default in the format of its ending, or to a stream, which stays open."""
    encoder = make_encoder(choose_format(str(target) if isinstance(target, Path) else "-", file_format))
    with replace_file(target) if isinstance(target, Path) else nullcontext(target) as stream:
        writer = RecordWriter(stream, encoder)
        yield writer
        writer.close()


@contextmanager
def replace_file(path: Path) -> Generator[BinaryIO]:
    """Open a file for writing that takes its name at the end; a failure removes it, and a file of that name stays as it was."""
    path = path.resolve()  # a link stays, and its target is replaced
    direct = path.exists() and not path.is_file()  # a device or a pipe keeps its name
    # Beside the target, because a rename is atomic only within one file system; a random name, because exports may overlap.
    temporary = path if direct else path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    with _report_failures(f"`{path}`"):
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        stream = temporary.open("wb" if direct else "xb")
    try:
        yield stream
        with _report_failures(f"`{path}`"):
            if not direct:
                stream.flush()
                os.fsync(stream.fileno())  # else a crash after the rename could leave an empty file under the name
            stream.close()
            if not direct:
                temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the rest that could not be written before cannot be now
            stream.close()
        if not direct:
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _report_failures(what: str) -> Generator[None]:
    """Raise a failure of the system as ours. A broken pipe stays one: whoever opened the output knows what its end means."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RequestError([Fault("output", f"{what} cannot be written: {error.strerror}")]) from None
