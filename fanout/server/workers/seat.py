"""A worker's place under its supervisor, and the messages between the two."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fanout.config.settings import Settings
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.server.listening import Listeners

LEADER = 0
"""The worker that does what one of them must do alone: reloads, the page of metrics, deleting what is old."""
READY, SETTINGS, FIGURES = "ready", "settings", "figures"
"""Messages to the supervisor: the worker serves; the configuration of its successors; what they must know of past counts."""
STOP, RELOAD = "stop", "reload"
"""Messages of the supervisor: a signal that ends the server; read the configuration again."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place: what it was given by its supervisor."""

    number: int
    count: int
    """Workers in all."""
    folder: Path
    """Where the workers' sockets are; nobody else may enter it."""
    channel: Connection
    listeners: Sequence[Listeners]
    """By worker."""
    settings: Settings
    figures: bytes
    """What the leader before this one knew of the workers' counts; empty: there was none."""
    is_replacement: bool

    @property
    def is_leader(self) -> bool:
        return self.number == LEADER

    def report_ready(self, _address: str) -> None:
        """Report that this worker serves."""
        self._send((READY,))

    async def keep(self, kind: str, value: object) -> None:
        """Have the supervisor keep something for whoever takes a seat after this."""
        # In a thread, for a page of metrics may be longer than the system's buffer.
        await run_in_thread("figures", self._send, (kind, value))

    def _send(self, message: tuple[object, ...]) -> None:
        with suppress(OSError):  # it is gone, which `listen` finds out
            self.channel.send(message)


class Orders:
    """The orders of the supervisor, as a worker obeys them."""

    def __init__(self, seat: Seat, stop: Callable[[signal.Signals], None], reload: Callable[[], None]) -> None:
        self._seat, self._stop, self._reload = seat, stop, reload
        self._loop = asyncio.get_running_loop()
        self._is_leaving = False
        """This process was sent SIGTERM itself."""
        self._stops = 0
        """Orders to stop."""

    def listen(self) -> None:
        """Obey the supervisor from now on, and stop when it is gone."""
        self._loop.add_reader(self._seat.channel.fileno(), self._receive)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave)

    def _receive(self) -> None:
        try:
            kind, *values = self._seat.channel.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._seat.channel.fileno())
            log.error("supervisor.lost", worker_pid=os.getpid())
            shutil.rmtree(self._seat.folder, ignore_errors=True)
            self._stop(signal.SIGINT)  # at once: whoever is started in its place wants the port
            return
        if kind == RELOAD:
            self._reload()
        elif kind == STOP:
            self._stops += 1
            # The second ends the drain. The first must not, where all processes of a service were sent a signal at once.
            if self._stops > 1 or not self._is_leaving:
                self._stop(values[0])

    def _leave(self) -> None:
        # Only this worker is to go, whose place is taken again: what ends the server goes to the supervisor.
        if not (self._is_leaving or self._stops):
            self._is_leaving = True
            self._stop(signal.SIGTERM)
