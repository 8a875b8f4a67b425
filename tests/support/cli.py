"""The real `fanout` command in a process of its own: run to its end, left running, or serving."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fork_server import ForkedProcess, fork_fanout

FANOUT = (sys.executable, "-m", "fanout")
PATIENCE_S = 60
Process = asyncio.subprocess.Process | ForkedProcess
READ_BY_PYTHON = re.compile("PYTHON|LANG$|LC_|LD_|TZ$")
"""Variables that matter before the first line of `fanout`."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command's exit code and outputs."""

    code: int | None
    out: str
    err: str


def build_environ(**variables: str) -> dict[str, str]:
    """Return this process's variables without those that mean something to Fanout: no keys, none of the user's files.

    Bytecode is kept whatever the user has set: compiling the package anew is a fifth of what a command takes.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.search("^FANOUT_|_(KEY|TOKEN|BASE_URL)$|^XDG_|HOST|PORT|^PYTHONDONTWRITEBYTECODE$", name)
    }
    return {
        **kept,
        "HOME": os.devnull,
        "FANOUT_STORE": ":memory:",
        "FANOUT_DRAIN_S": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **variables,
    }


async def start_command(
    command: Sequence[str],
    environ: dict[str, str],
    *,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    cwd: Path | None = None,
    on_terminal: bool = False,
) -> Process:
    """Start a command; `fanout` is forked, unless Python itself reads one of its variables."""
    arguments = tuple(command[len(FANOUT) :])
    if tuple(command) == FANOUT + arguments and _list_read_by_python(environ) == _list_read_by_python(build_environ()):
        return await fork_fanout(
            arguments, environ, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, on_terminal=on_terminal
        )
    prepare = (lambda: os.login_tty(0)) if on_terminal else None
    return await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=environ, preexec_fn=prepare
    )


def _list_read_by_python(environ: Mapping[str, str]) -> set[tuple[str, str]]:
    return {item for item in environ.items() if READ_BY_PYTHON.match(item[0])}


async def run_fanout(*arguments: str, given: bytes | None = None, cwd: Path | None = None, **variables: str) -> CommandResult:
    """Run `fanout` to its end; `given` is its standard input."""
    return await run_command(FANOUT + arguments, given=given, cwd=cwd, **variables)


async def run_command(
    command: Sequence[str], *, given: bytes | None = None, cwd: Path | None = None, **variables: str
) -> CommandResult:
    """Run any command to its end."""
    stdin = DEVNULL if given is None else PIPE
    process = await start_command(command, build_environ(**variables), stdin=stdin, cwd=cwd)
    async with _kill_at_end(process), asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(given)
    return CommandResult(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def start_fanout(
    *arguments: str, cwd: Path | None = None, command: Sequence[str] = FANOUT, **variables: str
) -> AsyncGenerator[Process]:
    """Start `fanout` with both outputs in `stdout`; kill it at the end if it still runs."""
    process = await start_command((*command, *arguments), build_environ(**variables), stderr=STDOUT, cwd=cwd)
    async with _kill_at_end(process):
        yield process


@asynccontextmanager
async def serve_fanout(*arguments: str, command: Sequence[str] = FANOUT, **variables: str) -> AsyncGenerator[str]:
    """Run `fanout serve` on a free port and yield its address."""
    async with start_fanout("serve", "--port", "0", *arguments, cwd=None, command=command, **variables) as process:
        yield await read_address(process)
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()


async def read_address(server: Process) -> str:
    """Wait for the greeting of a server and return the address in it."""
    assert server.stdout
    output = ""
    async with asyncio.timeout(PATIENCE_S):
        while line := (await server.stdout.readline()).decode():
            output += line
            if found := re.search(r"listens on (http://[^;\s]+)", line):
                return found[1]
    raise AssertionError(f"it did not start: {output}")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running `fanout serve` with its log."""

    process: Process
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Wait until it has ended and return its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def stop(self) -> int:
        self.terminate()
        return await self.wait()

    def read_log(self) -> str:
        return self.log.read_text()

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of the log as objects, or only those of one event."""
        lines = [json.loads(line) for line in self.read_log().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    async def wait_for_event(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines of an event, because the log is written a moment later, and return them."""
        until = time.monotonic() + 5
        while len(found := self.log_lines(event)) < count and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert len(found) >= count, self.read_log()
        return found


@asynccontextmanager
async def start_server(
    config: Path, *, port: int = 0, stderr: int | None = None, cwd: Path | None = None, **variables: str
) -> AsyncGenerator[ServerProcess]:
    """Run `fanout serve` with its log in a file, or on the descriptor `stderr`; kill it at the end if it still runs."""
    log = config.with_name(f"log-{time.monotonic_ns()}")
    log.touch()
    descriptor = os.open(log, os.O_WRONLY) if stderr is None else stderr
    arguments = ("serve", "--port", str(port), "--config", str(config))
    process = await start_command(FANOUT + arguments, build_environ(**variables), stderr=descriptor, cwd=cwd)
    if stderr is None:
        os.close(descriptor)
    try:
        yield ServerProcess(process, await read_address(process), log)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def read_until(process: Process, word: str) -> str:
    """Return what a process prints up to the line with a word."""
    assert process.stdout
    output = ""
    async with asyncio.timeout(PATIENCE_S):
        while word not in output:
            line = (await process.stdout.readline()).decode()
            assert line, output
            output += line
    return output


async def end(process: Process) -> tuple[int | None, str]:
    """Stop a process by SIGTERM; return its exit code and what else it has printed."""
    process.terminate()
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


def describe_shape(value: Any) -> Any:
    """Return a value's keys and types, without what may differ between two answers."""
    if isinstance(value, dict):
        return {name: describe_shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [describe_shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@asynccontextmanager
async def _kill_at_end(process: Process) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
