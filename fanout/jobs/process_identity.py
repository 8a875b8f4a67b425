"""Who this process is, and whether another one still lives."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def machine_id() -> str:
    """This machine until its next start; a container of its own is a machine of its own."""
    with suppress(OSError):
        return f"{BOOT.read_text().strip()}.{os.readlink('/proc/self/ns/pid')}"
    return ""


def current_process() -> str:
    """This process, told apart from every other one: host, machine, number, start."""
    return f"{socket.gethostname()}|{machine_id()}|{os.getpid()}|{_started(os.getpid())}"


def is_gone(other: str) -> bool:
    """Whether a process is known to have ended; false where that cannot be seen from here."""
    _, where, pid, started = other.rsplit("|", 3)
    return bool(where) and where == machine_id() and _started(int(pid)) != started and not _hidden(int(pid))


def _hidden(pid: int) -> bool:
    """It lives, but /proc does not show it to us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return not _started(pid)
    return False


def _started(pid: int) -> str:
    """When a process began, in ticks of the kernel; empty where there is none.

    Source: field 22 of proc_pid_stat(5); what stands before may hold spaces and brackets.
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""
