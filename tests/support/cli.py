"""The real `fanout` command in a process of its own: `await run("ask", "hi")`, and `started(…)` where it is left running."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FANOUT = (sys.executable, "-m", "fanout")
PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int | None
    out: str
    err: str


def environ(**given: str) -> dict[str, str]:
    """This process's variables without those that mean something to Fanout: no keys, no files of the user's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.search("^FANOUT_|_(KEY|TOKEN|BASE_URL)$|^XDG_|HOST|PORT", name)
    }
    return {**kept, "HOME": os.devnull, "FANOUT_STORE": ":memory:", "PYTHONPATH": str(Path(__file__).parents[2]), **given}


async def run(*arguments: str, given: bytes | None = None, cwd: Path | None = None, **variables: str) -> Ran:
    """Runs `fanout` to its end; `given` is its standard input."""
    return await ran(FANOUT + arguments, given=given, cwd=cwd, **variables)


async def ran(command: Sequence[str], *, given: bytes | None = None, cwd: Path | None = None, **variables: str) -> Ran:
    """Runs any command to its end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if given is None else pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=cwd,
        env=environ(**variables),
    )
    async with _ended(process), asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(given)
    return Ran(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(*arguments: str, cwd: Path | None = None, **variables: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`fanout` left running, both of its outputs in `stdout`; killed at the end where it still runs."""
    process = await asyncio.create_subprocess_exec(
        *FANOUT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=cwd, env=environ(**variables)
    )
    async with _ended(process):
        yield process


@asynccontextmanager
async def serving(*arguments: str, **variables: str) -> AsyncGenerator[str]:
    """The address of `fanout serve` on a free port."""
    async with started("serve", "--port", "0", *arguments, cwd=None, **variables) as process:
        yield await address_of(process)
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()


async def address_of(server: asyncio.subprocess.Process) -> str:
    """Waits for the greeting."""
    assert server.stdout
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        while line := (await server.stdout.readline()).decode():
            said += line
            if found := re.search(r"listens on (http://[^;\s]+)", line):
                return found[1]
    raise AssertionError(f"it did not start: {said}")


def shape(value: Any) -> Any:
    """Its keys and types, without what may differ between two answers."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
