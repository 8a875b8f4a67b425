"""Programs pinned to a core of this machine, and their figures in /proc (Linux only)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A figure cannot be measured; the message says why."""


@cache
def get_cores() -> tuple[int, int]:
    """Return the core of the server under test and the core of load and upstream.

    Cached, because run.py then pins itself to one of them.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError(f"needs two cores, and may use only {len(allowed)}: the load would be measured with the server")
    return allowed[0], allowed[1]


def pin_to(*cores: int) -> Callable[[], None]:
    """Return a `preexec_fn` that lets a program run only on these cores."""
    return lambda: os.sched_setaffinity(0, cores)


def rss_mb(pid: int | str) -> float:
    """Return resident memory in units of 2**20 bytes. Source: proc_pid_status(5), VmRSS."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure_cpu_s(pid: int) -> float:
    """Return user and system time of all threads of a process so far. Source: proc_pid_stat(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Usage:
    """Time a program had a core, and time it waited for one."""

    cpu_s: float
    waited_s: float

    def since(self, before: Usage) -> Usage:
        return Usage(self.cpu_s - before.cpu_s, self.waited_s - before.waited_s)

    @property
    def lost_ratio(self) -> float:
        return self.waited_s / max(self.waited_s + self.cpu_s, 1e-9)


@dataclass(frozen=True, slots=True)
class Program:
    """A running program and the file with its output."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def usage(self) -> Usage:
        return Usage(self.cpu_s(), self._waited_s())

    def cpu_s(self) -> float:
        return measure_cpu_s(self.child.pid)

    def _waited_s(self) -> float:
        """Return the time the main thread waited for a core. Source: kernel's scheduler/sched-stats, /proc/PID/schedstat."""
        return int(Path(f"/proc/{self.child.pid}/schedstat").read_text().split()[1]) / 1e9

    def rss_mb(self) -> float:
        return rss_mb(self.child.pid)

    def check(self) -> None:
        """Make sure that the program still runs.

        Raises:
            BenchError: it has ended; holds the end of its output.
        """
        if self.child.poll() is not None:
            output = self.log.read_text(errors="replace").strip()[-600:] or "nothing"
            raise BenchError(f"{self.name} ended with {self.child.returncode}; its output: {output}")


@contextmanager
def run_program(
    command: Sequence[str],
    core: int | Sequence[int],
    log: Path,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Program]:
    """Run a program on a core, or on several, for as long as the context lasts."""
    cores = (core,) if isinstance(core, int) else core
    with log.open("wb") as sink:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environ, cwd=folder, preexec_fn=pin_to(*cores)
            )
        except OSError as error:
            raise BenchError(f"cannot start `{command[0]}`: {error.strerror}") from error
    try:
        yield Program(log.stem, child, log)
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(program: Program, port: int, path: str, timeout_s: float) -> None:
    """Wait for the first 200 on `path`.

    Raises:
        BenchError: the program ended, or gave no 200 in time.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        program.check()
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.002)
    raise BenchError(f"`{path}` on port {port} gave no 200 within {timeout_s:g} s")
