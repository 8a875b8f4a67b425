"""A small simulation of processes that share a database: its cores, the locks of its rows, and no real time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush
from itertools import count
from typing import Literal

Step = tuple[Literal["wait", "cpu", "lock", "unlock"], float]
"""Wait so many seconds; execute so many seconds of a statement; take or free the lock of a number."""
Process = Generator[Step, None, None]


class Simulation:
    """Processes and a database with so many cores, which serves statements in the order in which they come."""

    def __init__(self, cores: int) -> None:
        self.now = 0.0
        self.busy_s = 0.0
        """Of all cores."""
        self.lock_s: dict[int, float] = {}
        """Time for which each lock was held."""
        self._free_cores = cores
        self._statements: deque[tuple[Process, float]] = deque()
        self._locked: dict[int, float] = {}
        self._waiting: dict[int, deque[Process]] = {}
        self._events: list[tuple[float, int, Process, bool]] = []
        self._numbers = count()

    def start(self, process: Process, after_s: float = 0.0) -> None:
        self._at(after_s, process)

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] <= seconds:
            self.now, _, process, has_core = heappop(self._events)
            if has_core:
                self._free_cores += 1
                self._serve()
            self._advance(process)
        self.now = seconds

    def _at(self, delay_s: float, process: Process, *, has_core: bool = False) -> None:
        heappush(self._events, (self.now + delay_s, next(self._numbers), process, has_core))

    def _advance(self, process: Process) -> None:
        kind, amount = next(process)
        if kind == "wait":
            self._at(max(amount, 0.0), process)
        elif kind == "cpu":
            self._statements.append((process, amount))
            self._serve()
        elif kind == "lock":
            if int(amount) in self._locked:
                self._waiting.setdefault(int(amount), deque()).append(process)
            else:
                self._locked[int(amount)] = self.now
                self._at(0.0, process)
        else:
            self._unlock(int(amount))
            self._at(0.0, process)

    def _unlock(self, lock: int) -> None:
        self.lock_s[lock] = self.lock_s.get(lock, 0.0) + self.now - self._locked.pop(lock)
        if waiting := self._waiting.get(lock):
            self._locked[lock] = self.now
            self._at(0.0, waiting.popleft())

    def _serve(self) -> None:
        while self._free_cores and self._statements:
            process, seconds = self._statements.popleft()
            self._free_cores -= 1
            self.busy_s += seconds
            self._at(seconds, process, has_core=True)
