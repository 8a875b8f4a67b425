"""Files that only their owner can read: mode 0600 before the first byte, written atomically, with a copy of the old file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path


def write(
    path: Path,
    content: bytes,
    check: Callable[[Path], object] = lambda _: None,
    *,
    mode: int = 0o600,
    has_copy: bool = True,
) -> Path | None:
    """Write a file that others cannot read at any moment; return the copy of the file it replaces, if it is to have one.

    `check` is called with the finished file before it takes its place; if it raises, nothing has changed.
    """
    path = path.resolve()  # a symbolic link stays: its target is written
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # creates it with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())  # before the rename: else a power cut could leave an empty file in its place
        check(Path(name))
        copy = _back_up(path) if has_copy else None
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return copy


def _back_up(path: Path) -> Path | None:
    """Copy a file to the first free name of `keys.env.bak`, `keys.env.bak2`, …; return `None` if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    for number in count(1):
        copy = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return copy
    raise AssertionError("there is always a free name")
