"""The workers of a bake-off, and what they report: calls, claims, recoveries."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from units import UNITS

FOLDER = Path(__file__).parent
CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Engine:
    name: str
    script: str
    table: str
    """The table whose rows change with every claim."""
    schema: Callable[[], str]
    plan: str
    open: str
    """The condition that a chunk has not ended."""
    late: str = ""
    """What becomes of a chunk whose carrier was fenced out."""


@dataclass
class Reports:
    """What the workers have reported."""

    calls: Counter[tuple[int, int]] = field(default_factory=Counter)
    held: dict[int, set[int]] = field(default_factory=dict)
    """The chunks that each process is carrying."""
    waiting: dict[int, float] = field(default_factory=dict)
    """When the carrier of a chunk was killed that nobody has claimed since."""
    recoveries: list[float] = field(default_factory=list)
    ended: int = 0
    refused: int = 0

    def take(self, line: bytes) -> None:
        pid, event, chunk, *numbers = json.loads(line)
        held = self.held.setdefault(pid, set())
        if event == "call":
            step, units = numbers
            self.calls[chunk, step * 1000 + units] += 1
        elif event == "start":
            held.add(chunk)
            if (killed_at := self.waiting.pop(chunk, None)) is not None:
                self.recoveries.append(time.monotonic() - killed_at)
        else:
            held.discard(chunk)
            self.ended += event == "end"
            self.refused += event == "refused"

    def twice(self) -> int:
        """Return the units that were called again."""
        return sum((times - 1) * (key[1] % 1000) for key, times in self.calls.items())


class Fleet:
    """Processes of one engine; one that ends is started again, as a supervisor does."""

    def __init__(self, engine: Engine, urls: list[str], step_s: float, log: Path) -> None:
        self.engine, self.reports, self.restarts = engine, Reports(), 0
        self._urls, self._step_s, self._log = urls, step_s, log
        self.children: list[subprocess.Popen[bytes]] = []
        self._read, self._write = os.pipe()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.children = [self._spawn(url) for url in self._urls]
        self._tasks = [asyncio.create_task(self._collect()), asyncio.create_task(self._supervise())]

    def _spawn(self, url: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(FOLDER / self.engine.script), url, str(self._step_s), str(CONCURRENCY)]
        environ = {**os.environ, "LATE": self.engine.late}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._write, stderr=log, env=environ)

    async def _collect(self) -> None:
        reader = asyncio.StreamReader(limit=2**22)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read, "rb"))
        while line := await reader.readline():
            self.reports.take(line)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for place, child in enumerate(self.children):
                if child.poll() is not None:
                    self.note_death(child.pid)
                    self.restarts += 1
                    self.children[place] = self._spawn(self._urls[place])

    def note_death(self, pid: int) -> None:
        for chunk in self.reports.held.pop(pid, set()):
            self.reports.waiting.setdefault(chunk, time.monotonic())

    def kill(self, place: int) -> None:
        child = self.children[place]
        self.note_death(child.pid)
        child.kill()
        child.wait()
        self.children[place] = self._spawn(self._urls[place])

    def signal(self, place: int, number: signal.Signals) -> None:
        self.children[place].send_signal(number)

    async def rate(self, seconds: float) -> float:
        """Return the units per second that are recorded from now on."""
        ended, began = self.reports.ended, time.monotonic()
        await asyncio.sleep(seconds)
        return (self.reports.ended - ended) * UNITS / (time.monotonic() - began)

    async def stop(self) -> None:
        for task in self._tasks[1:]:
            task.cancel()
        for child in self.children:
            child.kill()
            child.wait()
        os.close(self._write)
        await asyncio.sleep(0.2)
        self._tasks[0].cancel()


async def fetch(url: str, sql: str, *values: Any) -> list[Any]:
    """Execute a statement on a connection of its own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if values or sql.lstrip().upper().startswith(("SELECT", "WITH")):
            return [tuple(row) for row in await connection.fetch(sql, *values)]
        await connection.execute(sql)
        return []
    finally:
        with suppress(Exception):
            await connection.close()
