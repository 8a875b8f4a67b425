"""Databases for tests: SQLite files and PostgreSQL databases, and connections to them that are not Fanout's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from fanout.store.opening import MEMORY
from fanout.store.tables import metadata
from tests.support.postgres import Postgres, connect

SYSTEMS = ("sqlite", "postgresql")


@contextmanager
def create_location(request: pytest.FixtureRequest, **template: str) -> Iterator[str]:
    """Yield the location of a new database: a file that does not exist yet, or a PostgreSQL database with tables.

    Args:
        request: of the fixture; its parameter says which.
        template: another one than the database with tables, for PostgreSQL.
    """
    if request.param == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        yield str(folder / "fanout.db")
    elif request.param == MEMORY:
        yield MEMORY
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        location = asyncio.run(server.create(**template))
        yield location
        asyncio.run(server.drop(location))


class OutsideConnection:
    """A connection that is not Fanout's, with a driver of its own: reads a database, or locks it."""

    def __init__(self, location: str) -> None:
        self._sqlite: sqlite3.Connection | None = None
        self._postgres: Any = None
        # An event loop of its own, so that a test can use it between two steps of its own loop.
        self._runner, self._thread = asyncio.Runner(), ThreadPoolExecutor(1)
        if "://" in location:
            self._postgres = self._run(lambda: connect(location))
        else:
            self._sqlite = sqlite3.connect(location, isolation_level=None, check_same_thread=False)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        if self._sqlite:
            return self._sqlite.execute(sql).fetchall()
        return [tuple(row) for row in self._run(lambda: self._postgres.fetch(sql))]

    def hold(self) -> None:
        """Let nobody else write, until `release`."""
        if self._sqlite:
            self.execute("BEGIN IMMEDIATE")
        else:
            self.execute("BEGIN")
            self.execute(f"LOCK TABLE {', '.join(metadata.tables)} IN SHARE ROW EXCLUSIVE MODE")

    def release(self) -> None:
        self.execute("COMMIT")

    def close(self) -> None:
        if self._sqlite:
            self._sqlite.close()
        elif self._postgres:
            self._run(self._postgres.close)
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return self._thread.submit(lambda: self._runner.run(run())).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def query(location: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, executed on a connection that is not Fanout's."""
    with OutsideConnection(location) as database:
        return database.execute(sql)
