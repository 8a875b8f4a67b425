"""`fanout serve` in a process of its own: its address, its log, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cli import FANOUT, PATIENCE_S, address_of, environ


@dataclass(frozen=True, slots=True)
class Serving:
    """The running program."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """The exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def stop(self) -> int:
        self.terminate()
        return await self.ended()

    def written(self) -> str:
        return self.log.read_text()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What was logged, each line an object; those of one event."""
        lines = [json.loads(line) for line in self.written().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    async def logged(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Waits for lines of an event: the log is written a moment later."""
        until = time.monotonic() + 5
        while len(found := self.lines(event)) < count and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert len(found) >= count, self.written()
        return found


@asynccontextmanager
async def running(
    config: Path, *, port: int = 0, stderr: int | None = None, cwd: Path | None = None, **variables: str
) -> AsyncGenerator[Serving]:
    """Serves on a free port; the log is a file, or goes to the descriptor `stderr`. Killed at the end where it still runs."""
    log = config.with_name(f"log-{time.monotonic_ns()}")
    log.touch()
    descriptor = os.open(log, os.O_WRONLY) if stderr is None else stderr
    process = await asyncio.create_subprocess_exec(
        *FANOUT,
        *("serve", "--port", str(port), "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=descriptor,
        cwd=cwd,
        env=environ(**variables),
    )
    if stderr is None:
        os.close(descriptor)
    try:
        yield Serving(process, await address_of(process), log)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
