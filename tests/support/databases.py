"""What is true of both databases: the fixture `location` gives a test a SQLite file, then a PostgreSQL database, both empty."""

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

from fanout.store import MEMORY
from fanout.store.tables import metadata
from tests.support.postgres import Postgres, connect

BOTH = ("sqlite", "postgresql")


@contextmanager
def place(request: pytest.FixtureRequest, **template: str) -> Iterator[str]:
    """Where a new database is: on PostgreSQL with its tables unless another template is named; a file that is not there yet."""
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


@pytest.fixture(params=BOTH)
def location(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database: where it is, for `open_store`."""
    with place(request) as found:
        yield found


@pytest.fixture(params=BOTH)
def bare_location(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without tables."""
    with place(request, template="template1") as found:
        yield found


class Beside:
    """A connection that is not Fanout's, with a driver of its own: looks into a database, or holds it."""

    def __init__(self, location: str) -> None:
        self._sqlite: sqlite3.Connection | None = None
        self._postgres: Any = None
        # A loop of its own: whoever looks does so between two steps of the test's.
        self._runner, self._thread = asyncio.Runner(), ThreadPoolExecutor(1)
        if "://" in location:
            self._postgres = self._ran(lambda: connect(location))
        else:
            self._sqlite = sqlite3.connect(location, isolation_level=None, check_same_thread=False)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        if self._sqlite:
            return self._sqlite.execute(sql).fetchall()
        return [tuple(row) for row in self._ran(lambda: self._postgres.fetch(sql))]

    def hold(self) -> None:
        """Lets nobody else write, until `release`."""
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
            self._ran(self._postgres.close)
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _ran(self, asked: Callable[[], Awaitable[Any]]) -> Any:
        async def answer() -> Any:
            return await asked()

        return self._thread.submit(lambda: self._runner.run(answer())).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def rows(location: str, sql: str) -> list[tuple[Any, ...]]:
    """What a statement gives, asked beside Fanout."""
    with Beside(location) as database:
        return database.execute(sql)
