"""Loading of inputs in threads: apart from other threads, within a budget of bytes, and stopped when nobody waits any more."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from fanout.core.threads import run_in_thread
from fanout.jobs.input_formats.rows import UnreadableInputError

BUDGET_BLOCK_BYTES = 2**16
Found = TypeVar("Found")


class LoadingStoppedError(Exception):
    """The loading was stopped: nobody waits for it any more."""


class LoadingBudget:
    """The bytes that one input may unpack to, and whether its loading goes on."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._spent = 0
        # A thread cannot be cancelled: the event is what it looks at between two blocks.
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the loading at its next step."""
        self._stopped.set()

    def spend(self, count: int = 0) -> None:
        """Count unpacked bytes.

        Raises:
            LoadingStoppedError: the loading is to end.
            UnreadableInputError: they are more than may be.
        """
        if self._stopped.is_set():
            raise LoadingStoppedError
        self._spent += count
        if self._spent > self.max_bytes:
            raise UnreadableInputError(f"it unpacks to more than {self.max_bytes:,} bytes (FANOUT_MAX_JOB_BYTES)")


_budget: ContextVar[LoadingBudget | None] = ContextVar("loading_budget", default=None)


def spend(count: int = 0) -> None:
    """Count unpacked bytes against the budget of the loading that runs in this thread; see `LoadingBudget.spend`."""
    if budget := _budget.get():
        budget.spend(count)


class BudgetedStream(io.RawIOBase):
    """An unpacking stream whose bytes count against the budget of the loading that reads it."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the caller passes a writable view of bytes
        # Small blocks: a kilobyte of gzip can unpack to a megabyte, which would be there before it is counted.
        read = self._stream.read(min(len(buffer), BUDGET_BLOCK_BYTES))
        spend(len(read))
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
