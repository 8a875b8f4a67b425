"""Files that are their owner's alone: mode 0600 before their first byte, whole or not at all, what stood there kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path


def write(path: Path, content: bytes, check: Callable[[Path], object] = lambda _: None, *, mode: int = 0o600) -> Path | None:
    """Writes a file that nobody else can read at any moment; the copy of what stood there, if something did.

    A link stays one: what it leads to is written.

    Args:
        check: is given the finished file before it takes its place; what it raises leaves everything as it was.
        mode: what the finished file may have beyond 0600.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 by its making
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        check(Path(name))
        copy = _kept(path)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return copy


def _kept(path: Path) -> Path | None:
    """A copy beside the file under the first free name, `keys.env.bak`, `keys.env.bak2`, …; `None` where there is no file."""
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
