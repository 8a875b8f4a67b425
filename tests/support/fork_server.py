"""The `fanout` command in processes forked from one that has imported it already, which costs a fifth of starting Python.

Each is a process with its own variables, folder, descriptors, terminal and signals. Only what Python does before the command's
first line is not repeated: a test of that, or with a variable of Python's own, starts `tests.support.cli.FANOUT` instead.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Sequence
from contextlib import suppress
from ctypes import CDLL
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED = (
    *("fanout.__main__", "fanout.cli.ask.command", "fanout.server.app", "fanout.api", "aiosqlite", "genai_prices"),
    *("fanout.evaluate.report.report", "fanout.evaluate.scorers"),
)
"""What most commands import; a command imports the rest as ever."""
MANY_DESCRIPTORS = 4096
PR_SET_PDEATHSIG = 1
SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Start:
    """A process to be forked; its three descriptors are sent along."""

    arguments: Sequence[str]
    environ: dict[str, str]
    cwd: Path
    on_terminal: bool
    """Its standard input becomes its controlling terminal."""


@dataclass(slots=True)
class ForkedProcess:
    """A forked process, with what the tests use of `asyncio.subprocess.Process`."""

    pid: int
    stdin: int | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None
    returncode: int | None = None
    end: asyncio.Future[int] = field(default_factory=asyncio.Future)

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return await asyncio.shield(self.end)

    async def communicate(self, given: bytes | None = None) -> tuple[bytes, bytes]:
        """Write its input, read what is left of its outputs, and wait for its end."""
        writing = asyncio.to_thread(self._write, given or b"")
        out, err, *_ = await asyncio.gather(_read(self.stdout), _read(self.stderr), writing, self.wait())
        return out, err

    def _write(self, given: bytes) -> None:
        if self.stdin is not None:
            descriptor, self.stdin = self.stdin, None
            with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
                pipe.write(given)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def fork_fanout(
    arguments: Sequence[str],
    environ: dict[str, str],
    *,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    cwd: Path | None = None,
    on_terminal: bool = False,
) -> ForkedProcess:
    """Run `fanout`; `stdin`, `stdout` and `stderr` are as for `asyncio.create_subprocess_exec`."""
    ours, theirs, opened = _open_ends(stdin, stdout, stderr)
    channel, end = socket.socketpair()
    with end:
        socket.send_fds(_start_server(), [b"\n"], [end.fileno()])
    text = pickle.dumps(Start(arguments, environ, cwd or Path.cwd(), on_terminal))
    socket.send_fds(channel, [len(text).to_bytes(SIZE_BYTES)], theirs)
    for descriptor in opened:
        os.close(descriptor)
    reader, writer = await asyncio.open_connection(sock=channel)
    writer.write(text)
    pid = int(await reader.readline())
    process = ForkedProcess(pid, ours[0], await _open_reader(ours[1]), await _open_reader(ours[2]))
    process.end = asyncio.create_task(_wait_for_end(process, reader, writer))
    return process


def _open_ends(*wanted: int) -> tuple[list[int | None], list[int], list[int]]:
    """Return our ends of the pipes, the process's three descriptors, and those of them that are to be closed here."""
    ours: list[int | None] = []
    theirs: list[int] = []
    opened: list[int] = []
    for place, one in enumerate(wanted):
        own, given = None, theirs[1] if one == STDOUT else one
        if one == PIPE:
            reading, writing = os.pipe()
            own, given = (writing, reading) if place == 0 else (reading, writing)
        elif one == DEVNULL:
            given = os.open(os.devnull, os.O_RDWR)
        ours.append(own)
        theirs.append(given)
        opened += [given] if one in (PIPE, DEVNULL) else []
    return ours, theirs, opened


async def _wait_for_end(process: ForkedProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    process.returncode = int(await reader.readline())
    writer.close()
    return process.returncode


async def _open_reader(descriptor: int | None) -> asyncio.StreamReader | None:
    if descriptor is None:
        return None
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read() if stream else b""


@cache
def _start_server() -> socket.socket:
    """Start the process that the others are forked from; it ends with this one, which has the other end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
            cwd=ROOT,
            # A fork of a process with threads may wait for one that it does not have.
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C goes to the tests, which then end what they have started
        )
    atexit.register(server.wait)
    atexit.register(ours.close)
    return ours


def serve(requests: socket.socket, parent: int) -> None:
    """Fork a process for each request until nobody is left to send one; returns in each process that is to run `fanout`."""
    _end_with(parent)
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        server = os.getpid()
        if os.fork() == 0:
            _end_with(server)
            requests.close()
            return _fork_one(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends: tests that are killed close nothing that others may have inherited."""
    CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _fork_one(channel: socket.socket) -> None:
    """Fork the process that is asked for, and report its number and its exit code; returns in that process."""
    size, descriptors, _, _ = socket.recv_fds(channel, SIZE_BYTES, 3)
    start = pickle.loads(channel.recv(int.from_bytes(size), socket.MSG_WAITALL))
    watcher = os.getpid()
    if (pid := os.fork()) == 0:
        _end_with(watcher)
        channel.close()
        return _become(start, descriptors)
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    with suppress(BrokenPipeError):
        channel.sendall(b"%d\n" % pid)
        channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _become(start: Start, descriptors: Sequence[int]) -> None:
    """Give this process what it would have been started with."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    if start.on_terminal:
        os.login_tty(0)
    os.closerange(3, MANY_DESCRIPTORS)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # buffered as their new files are
        old = getattr(sys, name)
        setattr(sys, name, open(old.fileno(), mode, encoding=old.encoding, errors=old.errors, closefd=False))  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(line_buffering=True)
    os.chdir(start.cwd)
    os.environ.clear()
    os.environ.update(start.environ)
    sys.argv[1:] = start.arguments
    sys.path[0] = str(start.cwd)


def _run() -> None:
    """Run `fanout` and end as Python does, but for modules, whose clearing would cost more than many a command."""
    from fanout.__main__ import main

    try:
        main()
    except SystemExit as end:
        threading._shutdown()  # type: ignore[attr-defined]  # as the processes of `multiprocessing` end
        atexit._run_exitfuncs()
        gc.collect()  # what complains of not having been closed does so now
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    _run()
