"""Identity of this process, as the owner of leases, and whether another process has ended."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identify_process() -> str:
    """Return the identity of this process: host, machine, number and start. No two processes share one."""
    return f"{socket.gethostname()}|{_machine_id()}|{os.getpid()}|{_start_time(os.getpid())}"


def split_identity(owner: str) -> tuple[str, int]:
    """Return the host and the number of a process."""
    host, _, pid, _ = owner.rsplit("|", 3)
    return host, int(pid)


def is_gone(owner: str) -> bool:
    """Return whether a process is known to have ended; false where that cannot be seen from here."""
    _, machine, pid, started = owner.rsplit("|", 3)
    # The start is compared too, because the number may have been reused for another process.
    is_here = bool(machine) and machine == _machine_id()
    return is_here and _start_time(int(pid)) != started and not _is_hidden(int(pid))


@cache
def _machine_id() -> str:
    """Return the identity of this machine until its next start; a container is a machine of its own."""
    # Numbers of processes mean something only within one namespace, and until the next start.
    with suppress(OSError):
        return f"{BOOT_ID.read_text().strip()}.{os.readlink('/proc/self/ns/pid')}"
    return ""


def _is_hidden(pid: int) -> bool:
    """Return whether a process lives, but /proc does not show it to us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return not _start_time(pid)
    return False


def _start_time(pid: int) -> str:
    """Return when a process began, in ticks of the kernel; empty where there is none.

    Source: field 22 of proc_pid_stat(5); the name before it may hold spaces and brackets.
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]  # a zombie has ended, though its parent has not noticed
    return ""
