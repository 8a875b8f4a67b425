"""A PostgreSQL server of a benchmark's own, in a temporary folder: restarts disturb nobody else's."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from machine import BenchError, find_free_port

USER, PASSWORD = "bench", "bench"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "autovacuum_naptime": "5s",
    "shared_preload_libraries": "pg_stat_statements",
}
"""Otherwise PostgreSQL's own defaults: each commit waits for its log, and autovacuum runs."""
START_S = 60.0


class Cluster:
    """A server that can be stopped as by a crash and started again."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.port = folder, find_free_port()
        self._programs = programs
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def make(self) -> None:
        """Create the files of the server."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        for path in (self.folder, secret):
            shutil.chown(path, *self._owner())
        command = [self._programs / "initdb", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}"]
        self._run([*command, "--no-instructions", "--encoding=UTF8", "--no-locale", f"--pgdata={self.folder / 'data'}"])

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(self.port)}.items()]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *settings],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._user(),
            )  # fmt: skip
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._server.poll() is None:
            with suppress(FileNotFoundError):
                if (self.folder / "data" / "postmaster.pid").read_text().split()[-1:] == ["ready"]:
                    return
            time.sleep(0.02)
        raise BenchError(f"PostgreSQL did not start: {(self.folder / 'log').read_text(errors='replace')[-600:]}")

    def stop(self) -> None:
        """Stop the server at once; what it had not committed is gone."""
        if self._server:
            self._server.send_signal(3)  # SIGQUIT: PostgreSQL's immediate shutdown
            self._server.wait(30)
            self._server = None

    def cpu_s(self) -> float:
        """Return the processor time of the server and of all its processes that live or have ended."""
        assert self._server
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(stat.parent.name) == self._server.pid:
                    ticks += sum(map(int, fields[11:15]))  # of its ended children, too
                elif int(fields[1]) == self._server.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._user())
        if done.returncode:
            raise BenchError(f"`{command[0]}` failed: {done.stderr[-600:]}")

    def _owner(self) -> tuple[int, int]:
        """Return the user to run it as: root may not."""
        if os.getuid():
            return os.getuid(), os.getgid()
        found = pwd.getpwnam("postgres")
        return found.pw_uid, found.pw_gid

    def _user(self) -> dict[str, Any]:
        user, group = self._owner()
        return {} if os.getuid() else {"user": user, "group": group, "extra_groups": []}


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Run a server, in memory if there is a folder for it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2]))
    if not found:
        raise BenchError("needs the programs of PostgreSQL: `apt-get install postgresql`")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fanout-bench-postgres-", dir=memory) as folder:
        cluster = Cluster(Path(folder), found[-1])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else nobody would stop the server
        try:
            cluster.make()
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
