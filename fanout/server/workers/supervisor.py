"""The supervisor of several workers: it starts them, replaces those that die, and passes on what the server is to do.

It is a process without threads and without an event loop, so that a worker can be forked from it at any time: a worker begins
with everything imported, in memory that all of them share.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, Fault
from fanout.observability.logs import log
from fanout.server.listening import Listeners
from fanout.server.reloading import has_terminal
from fanout.server.workers.seat import FIGURES, LEADER, READY, RELOAD, SETTINGS, STOP, Seat

SETTLED_S = 10.0
"""Time after which a worker that dies counts as one that has died for the first time."""
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 30.0
"""Time before a worker is replaced that has died again; it doubles with each death."""
MAX_FAILED_STARTS = 5
"""Starts in a row that may fail while no other worker serves."""
ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Worker:
    """A worker's process."""

    pid: int
    channel: Connection
    started: float
    is_replacement: bool
    is_ready: bool = False


@dataclass(slots=True)
class Place:
    """A worker's place, which the next one takes when it dies."""

    worker: Worker | None = None
    due: float = 0.0
    """Time of the next start."""
    deaths: int = 0
    """Deaths in a row, each soon after its start."""


class Supervisor:
    """The workers of a server."""

    def __init__(self, settings: Settings, listeners: Sequence[Listeners], on_ready: Callable[[], None]) -> None:
        self._settings, self._listeners, self._on_ready = settings, listeners, on_ready
        self._places = [Place() for _ in range(settings.environment.workers)]
        self._figures = b""
        self._pid, self._has_started, self._is_stopping, self._code = os.getpid(), False, False, 0
        self._had_terminal, self._must_reload = has_terminal(), False
        self._folder = _make_folder()
        self._signals, self._wakeup = socket.socketpair()
        for one in (self._signals, self._wakeup):
            one.setblocking(False)

    def run(self) -> Seat:
        """Return its seat in each worker that is forked; the supervisor itself ends with `SystemExit`.

        Its code is 0 after a signal, otherwise that of the worker that could not be started.
        """
        self._watch_signals()
        try:
            while True:
                if seat := self._start_due():
                    return seat
                self._wait()
                self._reap()
                if not any(place.worker for place in self._places) and self._is_stopping:
                    sys.exit(self._code)
        finally:
            if os.getpid() == self._pid:  # and not in a worker, which comes through here, too
                shutil.rmtree(self._folder, ignore_errors=True)

    def _watch_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (*ENDING, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it
                signal.signal(number, _ignore)
        signal.signal(signal.SIGCHLD, _ignore)

    def _start_due(self) -> Seat | None:
        """Start the workers whose time has come; in each of them, return its seat."""
        now = time.monotonic()
        for number, place in enumerate(self._places):
            if self._is_stopping or not (self._has_started or self._may_begin(number)):
                return None
            if place.worker is None and place.due <= now and (seat := self._start(number, place)):
                return seat
        return None

    def _may_begin(self, number: int) -> bool:
        # The first alone: it may have tables to bring up to date, and a fault of the configuration is told once.
        first = self._places[LEADER].worker
        return number == LEADER or (first is not None and first.is_ready)

    def _start(self, number: int, place: Place) -> Seat | None:
        ours, theirs = Pipe()
        is_replacement = self._has_started
        # A signal between the fork and the first line of the worker would be taken for one of the supervisor's.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGHUP, signal.SIGCHLD))
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
            place.worker = Worker(pid, ours, time.monotonic(), is_replacement)
            return None
        ours.close()
        self._become_worker()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return Seat(
            number=number,
            count=len(self._places),
            folder=self._folder,
            channel=theirs,
            listeners=self._listeners,
            settings=self._settings,
            figures=self._figures,
            is_replacement=is_replacement,
        )

    def _become_worker(self) -> None:
        """Give up what is the supervisor's, in a process that was forked from it."""
        signal.set_wakeup_fd(-1)
        # A terminal sends these to all processes in it, and the supervisor passes them on.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for place in self._places:
            if place.worker:
                place.worker.channel.close()
        self._signals.close()
        self._wakeup.close()

    def _wait(self) -> None:
        """Wait for signals, messages and the time of the next start, and do what they want."""
        channels = {place.worker.channel: number for number, place in enumerate(self._places) if place.worker}
        dues = [] if self._is_stopping else [place.due for place in self._places if not place.worker]
        timeout_s = max(min(dues) - time.monotonic(), 0.0) if dues and self._has_started else None
        for found in wait([self._signals, *channels], timeout_s):
            if isinstance(found, Connection):
                self._receive(channels[found], found)
        with suppress(BlockingIOError):
            for number in self._signals.recv(256):
                self._obey(signal.Signals(number))

    def _obey(self, number: signal.Signals) -> None:
        # The system sends it, too, when a window is closed: a server that went on would be found by nobody.
        is_closed = number == signal.SIGHUP and self._had_terminal and not has_terminal()
        if number in ENDING or is_closed:
            self._stop(number)
        elif number == signal.SIGHUP:
            self._must_reload = True
            self._reload()

    def _reload(self) -> None:
        """Have the leader read the configuration again, for all; one that is not ready yet, when it is."""
        leader = self._places[LEADER].worker
        if self._must_reload and leader and leader.is_ready:
            _send(leader, RELOAD)
            self._must_reload = False

    def _receive(self, number: int, channel: Connection) -> None:
        place = self._places[number]
        try:
            kind, *values = channel.recv()
        except (EOFError, OSError):
            if place.worker and place.worker.channel is channel:  # dead or dying: `_reap` finds out
                _wait_for_exit(place.worker.pid)
            return
        if kind == READY and place.worker:
            place.worker.is_ready = True
            self._reload()
            if place.worker.is_replacement:
                log.info("worker.replaced", worker=number, pid=place.worker.pid)
            elif all(place.worker and place.worker.is_ready for place in self._places):
                self._has_started = True
                self._on_ready()
        elif kind == SETTINGS:
            self._settings = values[0]
        elif kind == FIGURES:
            self._figures = values[0]

    def _stop(self, number: signal.Signals, code: int = 0) -> None:
        """Have all workers stop as by a signal; a second one ends their drain."""
        self._is_stopping, self._code = True, self._code or code
        # Connections that come when no worker accepts any more are refused, instead of waiting here for nobody.
        for listener in chain(*self._listeners):
            listener.close()
        for place in self._places:
            if place.worker:
                _send(place.worker, STOP, number)

    def _reap(self) -> None:
        """Find the workers that have died."""
        for number, place in enumerate(self._places):
            if place.worker is None:
                continue
            pid, status = os.waitpid(place.worker.pid, os.WNOHANG)
            if pid:
                self._replace(number, place, place.worker, os.waitstatus_to_exitcode(status))

    def _replace(self, number: int, place: Place, worker: Worker, ended: int) -> None:
        """Decide what becomes of a place whose worker has died."""
        place.worker = None
        worker.channel.close()
        code = ended if ended >= 0 else 1
        if self._is_stopping:
            self._code = self._code or code
            return
        now = time.monotonic()
        has_settled = worker.is_ready and now - worker.started >= SETTLED_S
        place.deaths = 1 if has_settled else place.deaths + 1
        delay_s = 0.0 if place.deaths == 1 else min(FIRST_DELAY_S * 2 ** (place.deaths - 2), MAX_DELAY_S)
        how = {"signal": signal.Signals(-ended).name} if ended < 0 else {"code": ended}
        serves = any(other.worker and other.worker.is_ready for other in self._places)
        is_hopeless = not worker.is_ready and not serves and place.deaths >= MAX_FAILED_STARTS
        if not self._has_started or is_hopeless:
            # Its own error is on standard error already, in its own words.
            if ended < 0 or is_hopeless:
                log.error("worker.failed", worker=number, pid=worker.pid, **how)
            self._stop(signal.SIGINT, code or 1)
            return
        log.error("worker.died", worker=number, pid=worker.pid, **how, replaced_in_s=delay_s)
        place.due = now + delay_s


def _make_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="fanout-"))  # of mode 0700
    except OSError as error:
        fault = Fault("TMPDIR", f"the workers' sockets need a folder: {error.strerror or error}")
        raise ConfigError("environment", [fault]) from error


def _send(worker: Worker, *message: object) -> None:
    with suppress(OSError):  # it has just died
        worker.channel.send(message)


def _wait_for_exit(pid: int) -> None:
    """Wait until a process has ended whose channel is closed, without taking its exit code."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _ignore(*_: object) -> None:
    """Receive a signal, whose number is read elsewhere."""
