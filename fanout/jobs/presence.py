"""Presence of this process among those that share its store: its row there, renewed every few seconds."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from fanout.core.errors import StoreError
from fanout.core.json_text import dump
from fanout.jobs.activity import ActivityJson
from fanout.jobs.process_identity import identify_process, is_gone
from fanout.observability.logs import log
from fanout.store.processes import Processes, ProcessKind, ProcessRow

BEAT_INTERVAL_S = 5.0
"""Interval between two writes of the row."""
SETTLING_S = 1.0
"""The same after the first write, at which a process does nothing yet."""
BEATS_BETWEEN_SWEEPS = 12


class Presence:
    """This process, as others that share its store see it.

    Args:
        registry: the processes of the store.
        kind: what runs.
        version: its version of Fanout.
        list_accounts: returns the accounts whose jobs it takes; `None`: all.
        describe: returns what it does.
        after_beat: awaited after each write; it may raise `StoreError`.
    """

    def __init__(
        self,
        registry: Processes,
        kind: ProcessKind,
        version: str,
        list_accounts: Callable[[], Sequence[str] | None],
        describe: Callable[[], ActivityJson],
        after_beat: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._registry, self._kind, self._version = registry, kind, version
        self._list_accounts, self._describe, self._after_beat = list_accounts, describe, after_beat
        self.id, self._started = identify_process(), time.monotonic()
        self._is_draining = self._is_failing = False
        self._closing, self._wake = False, asyncio.Event()

    @property
    def row(self) -> ProcessRow:
        """The process as it is now; its times are of this machine's clock."""
        accounts = self._list_accounts()
        now = time.monotonic()
        return ProcessRow(
            id=self.id,
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            accounts=None if accounts is None else dump(list(accounts)).decode(),
            state="draining" if self._is_draining else "working",
            activity=dump(self._describe()).decode(),
            started=self._started,
            seen=now,
            now=now,
        )

    def drain(self) -> None:
        """Tell the others at once that the process takes nothing new and will end."""
        self._is_draining = True
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Renew the row in the background, and delete it at the end."""
        task = asyncio.create_task(self._run(), name="presence")
        try:
            yield
        finally:
            self._closing = True
            self._wake.set()  # not cancelled: a statement that is cut off takes its connection with it
            await task
            with suppress(StoreError):  # else it counts as lost, and is deleted by another one
                await self._registry.remove(self.id)

    async def _run(self) -> None:
        number = 0
        while not self._closing:
            self._wake.clear()
            # At the first beat too: a worker that is scaled to 0 and back lives too short for a later one.
            try:
                await self._beat(sweeps=number % BEATS_BETWEEN_SWEEPS == 0)
            except StoreError as error:
                # Once, not every five seconds; nothing else of this process depends on its row.
                if not self._is_failing:
                    log.warning("process.beat_failed", reason=str(error))
                self._is_failing = True
            else:
                if self._is_failing:
                    log.info("process.beat_recovered")
                self._is_failing = False
            number += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_INTERVAL_S if number > 1 else min(SETTLING_S, BEAT_INTERVAL_S)):
                    await self._wake.wait()

    async def _beat(self, *, sweeps: bool) -> None:
        await self._registry.record(self.row)
        if sweeps:
            await self._registry.sweep()
        if self._after_beat:
            await self._after_beat()


def is_lost(row: ProcessRow) -> bool:
    """Return whether a process was not heard of for long, or is known to have ended."""
    return row.is_silent or is_gone(row.id)
