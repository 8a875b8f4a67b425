"""A real PostgreSQL server with a password, and for each test a database of its own.

It always stops at the end: its shell lives only as long as a pipe to this process is open, even if that is killed.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fanout.store.opening import open_store
from tests.support.ports import find_free_port

USER, PASSWORD = "fanout", "geheim-4711"
START_S, STOP_S = 60.0, 30.0
TEMPLATE = "migrated"
MEMORY_FOLDER, MIN_FREE_BYTES = "/dev/shm", 4 * 2**30
INITDB = ("--no-sync", "--no-instructions", "--auth=scram-sha-256", f"--username={USER}", "--encoding=UTF8", "--no-locale")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # no test survives a power failure
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
}
SHELL = """
"$@" & read -r word; kill -QUIT $!; wait $!
[ "$word" = keep ] || rm -rf "$FOLDER"
"""
"""Runs the server until a word comes through the pipe, or the pipe breaks; unless the word is `keep`, deletes its folder."""
NEEDED = "the server's programs (Debian's package `postgresql`) and `asyncpg`"


class Postgres:
    """A server and its databases."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's own folder, which only its owner can read: the server refuses to run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="fanout-postgres-", dir=_find_fast_folder()))
        self.port = find_free_port()
        self._numbers = count(1)
        self._shell: subprocess.Popen[bytes] | None = None

    @cached_property
    def _user(self) -> dict[str, Any]:
        """The user to run it as, because root may not."""
        if os.getuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                found = pwd.getpwnam(name)
                return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        raise LookupError("root may not run PostgreSQL, and there is no user `postgres` or `nobody`")

    @property
    def is_running(self) -> bool:
        return self._shell is not None

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Return the location of a database, for FANOUT_STORE."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Create the files of a new server."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (self.folder, secret):
                os.chown(path, self._user["user"], self._user["group"])
        command: list[str | Path] = [
            self._programs / "initdb",
            *INITDB,
            f"--pwfile={secret}",
            f"--pgdata={self.folder / 'data'}",
        ]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._user)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": self.port}.items()]
        with (self.folder / "log").open("ab") as log:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", SHELL, "sh", self._programs / "postgres", "-D", self.folder / "data", *settings],
                cwd=self.folder,
                env={**os.environ, "FOLDER": str(self.folder)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the tests, which then stop it
                **self._user,
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._shell.poll() is None:
            with suppress(FileNotFoundError):
                lines = (self.folder / "data" / "postmaster.pid").read_text().split()
                if lines[-1:] == ["ready"]:
                    return
            time.sleep(0.01)
        pytest.fail(f"PostgreSQL did not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}")

    def stop(self, *, keep: bool = True) -> None:
        """Stop it at once, as a crash would; delete its folder unless `keep`."""
        if self._shell is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        assert self._shell.stdin
        with suppress(BrokenPipeError):
            self._shell.stdin.write(b"keep\n" if keep else b"\n")
            self._shell.stdin.close()
        try:
            self._shell.wait(STOP_S)
        finally:
            self._shell.kill()
            self._shell = None

    async def create(self, *, template: str = TEMPLATE) -> str:
        """Create a database, with tables unless another template is named; return its location."""
        name = f"fanout_{next(self._numbers)}"
        await self.run(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return self.url(name)

    async def drop(self, location: str) -> None:
        """Delete a database, even if it is still open somewhere."""
        await self.run(f"DROP DATABASE {location.rpartition('/')[2]} WITH (FORCE)")

    async def run(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run a statement on a connection that is not Fanout's."""
        connection = await connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()


async def connect(location: str) -> Any:
    """Open a connection that is not Fanout's."""
    import asyncpg

    return await asyncpg.connect(location)


def _find_fast_folder() -> str | None:
    """Return a folder in memory, if there is a large one: on a busy disk a new database took up to a second."""
    with suppress(OSError):
        if shutil.disk_usage(MEMORY_FOLDER).free > MIN_FREE_BYTES:
            return MEMORY_FOLDER
    return None


def _find_programs() -> Path | None:
    """Return the folder of the server's programs: on the PATH, or the newest where Debian has them."""
    if (found := shutil.which("initdb")) and shutil.which("postgres"):
        return Path(found).parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return places[-1].parent if places else None


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Run a server; skip the test if its programs are missing, or fail it under CI."""
    programs = _find_programs()
    if programs is None or find_spec("asyncpg") is None:
        reason = f"NO POSTGRESQL: it needs {NEEDED}; scripts/test brings both"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = Postgres(programs)
    try:
        server.make()
        server.start()
        asyncio.run(_create_template(server))
        yield server
    finally:
        server.stop(keep=False)


async def _create_template(server: Postgres) -> None:
    await server.run(f"CREATE DATABASE {TEMPLATE}")
    async with open_store(server.url(TEMPLATE)):
        pass
