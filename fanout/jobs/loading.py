"""Loading of inputs in threads: apart from other threads, within a budget of bytes, and stopped when nobody waits any more."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import BinaryIO, TypeVar

from fanout.config.environment import Environment
from fanout.core.threads import run_in_thread
from fanout.jobs.input_formats.rows import UnreadableInputError

BUDGET_BLOCK_BYTES = 2**16
ROW_BYTES = 64
"""Count of each row beside its bytes: a kilobyte can unpack to a million rows of nearly none."""
MIN_UNPACKED_BYTES = 64 * 2**20
"""May be unpacked from any file, however small: about a million short rows."""
Found = TypeVar("Found")


class LoadingStoppedError(Exception):
    """The loading was stopped: nobody waits for it any more."""


class LoadingBudget:
    """What one input may unpack to, and whether its loading goes on.

    Args:
        max_bytes: in all.
        max_ratio: bytes unpacked, for each byte of the file that has been read.
    """

    def __init__(self, max_bytes: int, max_ratio: int) -> None:
        self.max_bytes, self._max_ratio = max_bytes, max_ratio
        self._spent = self._rows = self._read = 0
        # A thread cannot be cancelled: the event is what it looks at between two blocks.
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the loading at its next step."""
        self._stopped.set()

    def spend(self, count: int = 0, *, rows: int = 0) -> None:
        """Count unpacked bytes and rows.

        Raises:
            LoadingStoppedError: the loading is to end.
            UnreadableInputError: they are more than may be.
        """
        if self._stopped.is_set():
            raise LoadingStoppedError
        self._spent += count
        self._rows += rows
        if self._spent > self.max_bytes:
            raise UnreadableInputError(f"it unpacks to more than {self.max_bytes:,} bytes (FANOUT_MAX_JOB_BYTES)")
        if self._spent + ROW_BYTES * self._rows > max(MIN_UNPACKED_BYTES, self._max_ratio * self._read):
            sentence = f"it unpacks to more than {self._max_ratio} times its size (FANOUT_MAX_UNPACK_RATIO)"
            raise UnreadableInputError(f"{sentence}: {self._rows:,} rows from {self._read:,} bytes")

    def earn(self, count: int) -> None:
        """Count bytes of the file, for each of which some may be unpacked."""
        self._read += count


def make_budget(environment: Environment) -> LoadingBudget:
    """Return the budget of one input."""
    return LoadingBudget(environment.max_job_bytes, environment.max_unpack_ratio)


_budget: ContextVar[LoadingBudget | None] = ContextVar("loading_budget", default=None)


def spend(count: int = 0, *, rows: int = 0) -> None:
    """Count against the budget of the loading that runs in this thread; see `LoadingBudget.spend`."""
    if budget := _budget.get():
        budget.spend(count, rows=rows)


def earn(count: int) -> None:
    """Count bytes of the file for the budget of the loading that runs in this thread; see `LoadingBudget.earn`."""
    if budget := _budget.get():
        budget.earn(count)


class CountedStream(io.RawIOBase):
    """A stream whose bytes count for the budget of the loading that reads it, or against it.

    Args:
        stream: it stays open.
        count: `earn` for a file, `spend` for what it unpacks to.
    """

    def __init__(self, stream: BinaryIO, count: Callable[[int], None]) -> None:
        self._stream, self._count = stream, count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the caller passes a writable view of bytes
        # Small blocks: a kilobyte of gzip can unpack to a megabyte, which would be there before it is counted.
        # What a pipe holds is taken at once: `read` would wait for the whole block.
        read = getattr(self._stream, "read1", self._stream.read)(min(len(buffer), BUDGET_BLOCK_BYTES))
        self._count(len(read))
        buffer[: len(read)] = read
        return len(read)


async def load_in_thread(work: Callable[[], Found], budget: LoadingBudget) -> Found:
    """Run a step of a loading in a thread; if the caller is cancelled, the step ends early."""

    def run() -> Found:
        # In the thread's own context, so that loadings at the same time do not spend each other's budget.
        _budget.set(budget)
        return work()

    try:
        return await run_in_thread("inputs", run)
    except asyncio.CancelledError:
        # Else the thread would unpack to the end for a client that has gone, and keep its place in the pool.
        budget.stop()
        raise
