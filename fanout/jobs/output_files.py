"""Output files of jobs: written whole or not at all, in memory that does not grow with them."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fanout.core.errors import Fault, RequestError
from fanout.jobs.output_formats import ENCODERS, CsvEncoder, RecordEncoder

SUFFIXES: Mapping[str, str] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


MAX_LINKS = 40
"""As the kernel follows."""


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


def make_encoder(file_format: str, *, quote_formulas: bool = False) -> RecordEncoder:
    """Return an encoder of a format.

    Raises:
        RequestError: the format is not known, has no formulas to quote, or is Parquet and pyarrow is missing.
    """
    name = choose_format("-", file_format)
    if not quote_formulas:
        return ENCODERS[name]()
    if name != "csv":
        raise RequestError([Fault("quote_formulas", f"is for `csv`: {name} has no formulas")])
    return CsvEncoder(quote_formulas=True)


@contextmanager
def open_output(target: Path | BinaryIO) -> Generator[Callable[[bytes], object]]:
    """Open a file, or take a stream, which stays open; yield what writes to it and reports its failures."""
    with replace_file(target) if isinstance(target, Path) else nullcontext(target) as stream:

        def write(content: bytes) -> None:
            with _report_failures("the file"):
                stream.write(content)

        yield write
        with _report_failures("the file"):
            stream.flush()


@contextmanager
def replace_file(path: Path) -> Generator[BinaryIO]:
    """Open a file for writing that takes its name at the end; a failure removes it, and a file of that name stays as it was.

    A link stays, and its target is replaced. A device or a pipe is written directly.
    """
    with _report_failures(f"`{path}`"):
        target = find_target(path)
        if not target.is_replaced:
            stream: BinaryIO = os.fdopen(os.open(target.path, os.O_WRONLY | os.O_NOCTTY), "wb")
        else:
            temporary, stream = _create_beside(target.path)
    if not target.is_replaced:
        try:
            yield stream
            with _report_failures(f"`{path}`"):
                stream.flush()
        finally:
            with suppress(OSError):  # what could not be written before cannot be now
                stream.close()
        return
    try:
        yield stream
        with _report_failures(f"`{path}`"):
            stream.flush()
            os.fsync(stream.fileno())  # else a crash after the rename could leave an empty file under the name
            stream.close()
            temporary.replace(target.path)  # a link that was put there meanwhile is replaced, not followed
    except BaseException:
        with suppress(OSError):  # the rest that could not be written before cannot be now
            stream.close()
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Raise `RequestError` where a file cannot be written, as far as that can be seen without writing it."""
    with _report_failures(f"`{path}`"):
        target = find_target(path)
        if target.is_replaced:
            temporary, stream = _create_beside(target.path)
            stream.close()
            temporary.unlink()
        elif not os.access(target.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class OutputTarget(NamedTuple):
    """The file that a name stands for, and whether it is replaced as a whole; else it is written directly."""

    path: Path
    is_replaced: bool


def find_target(path: Path) -> OutputTarget:
    """Return what is to be written under a name.

    Raises:
        OSError: it is a folder, or somebody else's link, pipe or file in a folder that all may write to.
    """
    # By the kernel's own rules (`protected_symlinks`, `protected_fifos`, `protected_regular`), which a rename or a switch in
    # /proc would undo. Source: proc_sys_fs(5)
    for _ in range(MAX_LINKS):
        try:
            status = path.lstat()
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, f"there is no folder `{path.parent}`") from None
            return OutputTarget(path, is_replaced=True)
        folder = path.parent.stat()
        is_shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
        if is_shared and status.st_uid not in (os.geteuid(), folder.st_uid):
            raise PermissionError(errno.EACCES, "it belongs to somebody else, in a folder that all may write to")
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not stat.S_ISLNK(status.st_mode):
            return OutputTarget(path, is_replaced=stat.S_ISREG(status.st_mode))
        if path.exists() and not path.is_file() and not path.is_dir():
            return OutputTarget(path, is_replaced=False)  # such as /dev/stdout, whose link the kernel alone can follow
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _create_beside(path: Path) -> tuple[Path, BinaryIO]:
    # Beside the target, for a rename is only atomic within one file system; by chance, for two exports may run at once.
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    stream = temporary.open("xb")
    with suppress(FileNotFoundError):  # results that only their owner may read stay so
        os.fchmod(stream.fileno(), stat.S_IMODE(path.stat().st_mode) & 0o777)
    return temporary, stream


@contextmanager
def _report_failures(what: str) -> Generator[None]:
    """Raise a failure of the system as ours. A broken pipe stays one: whoever opened the output knows what its end means."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RequestError([Fault("output", f"{what} cannot be written: {error.strerror}")]) from None
