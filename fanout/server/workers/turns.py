"""Turns of several processes: locks in files of a folder that they share."""

from __future__ import annotations

import asyncio
import fcntl
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

FILES = 256
"""Callers choose the names: a file for each of them would be left behind for ever. Those of one file wait for each other."""
PAUSE_S = 0.01


@asynccontextmanager
async def hold_turn(folder: Path, name: str) -> AsyncGenerator[None]:
    """Hold the lock of a name among all processes; the system releases that of one that dies. Never hold two at once."""
    path = folder / f"{zlib.crc32(name.encode(errors='replace')) % FILES}.turn"
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(PAUSE_S)
        yield
