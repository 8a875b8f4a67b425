"""A database: its connections and transactions, and the few things that SQLite and PostgreSQL do differently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial, wraps
from itertools import starmap
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.exc import SQLAlchemyError

from fanout.core.errors import ConfigError, explain_missing_extra
from fanout.store.engine.connections import BEGIN_WRITE, MIGRATION_TIMEOUT_S, create_engine
from fanout.store.engine.dialects import DialectStatements
from fanout.store.engine.file_threads import FileThreads, Taken
from fanout.store.engine.lifetime import Lifetime
from fanout.store.engine.listener import Listener
from fanout.store.engine.location import MEMORY, find_file, name_database, parse_location, to_config_error

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

ROWS_AT_ONCE = 64
"""Rows that are taken before other requests get a turn."""
MAX_READERS = 4
"""Simultaneous read transactions; further ones wait."""
READING_THREADS = 2
"""Of a file, for queries that are transactions of their own; further ones wait."""
CLOSE_TIMEOUT_S = 10.0
"""The longest wait for a database at the end; then what is under way is given up."""
# In a `BEGIN` of its own SQLite reads from one snapshot; PostgreSQL does so only at this isolation level.
READ_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {"begin": "BEGIN"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
WRITE_OPTIONS: Mapping[str, Mapping[str, Any]] = {"sqlite": {"begin": BEGIN_WRITE}, "postgresql": {}}
Query = Select[Any]
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
Owner = TypeVar("Owner", bound="HasDatabase")
Method = Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]]


class Database(DialectStatements):
    """The connections to one database, to be closed after use.

    Transactions and statements raise `StoreError` if the database cannot be read or written.
    """

    def __init__(self, location: str, *, statement_timeout_s: float | None = None, is_lasting: bool = True) -> None:
        url = parse_location(location)
        self.dialect = url.get_backend_name()
        self.name = name_database(url)
        # A database in memory belongs to one connection. Otherwise the writer has its own: slow readers must not hold it up.
        self.in_memory = url.database == MEMORY
        try:
            writing = create_engine(url, 1, statement_timeout_s, is_lasting=is_lasting)
            reading = writing if self.in_memory else create_engine(url, MAX_READERS)
        except ImportError as error:
            raise self.to_config_error(f"PostgreSQL needs {explain_missing_extra('asyncpg', 'postgresql')}") from error
        except (SQLAlchemyError, ValueError) as error:  # ValueError: an option of a SQLite URL
            raise self.to_config_error(str(error).partition("\n")[0]) from error
        is_file, begin = find_file(url) is not None, "BEGIN"
        self._file_writer = FileThreads(url, "writer", is_lasting=is_lasting) if is_file else None
        self._file_readers = FileThreads(url, "reader", threads=READING_THREADS, begin=begin) if is_file else None
        self._peeks: dict[Query, str] = {}
        """The SQL of the few queries that are looks for changes."""
        self._turn = asyncio.Lock()
        """Of writers: those of one process would else sleep until SQLite looks again whether its file is free."""
        self.before_reading: Callable[[], Awaitable[None]] = _do_nothing
        """Awaited before what writers keep back for a moment is read: other processes may keep back some of it, too."""
        self.listener = Listener(self.make_engine, self.name)
        """To what other processes announce on PostgreSQL."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lifetime = Lifetime(self.name)
        if self.dialect != "sqlite":
            for engine in (writing, reading):
                self._lifetime.watch(engine)
        self._url = url
        self._reading = reading.execution_options(**READ_OPTIONS[self.dialect])
        self._writing = writing.execution_options(**WRITE_OPTIONS[self.dialect])
        self.sql_dialect = writing.dialect

    def to_config_error(self, reason: str) -> ConfigError:
        """Return the error that says why this database cannot be used, and what may be set instead."""
        return to_config_error(self.name, reason)

    @asynccontextmanager
    async def read_transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction whose every statement sees what the first one saw."""
        async with (
            self._lifetime.limit(),
            self._reading.connect() as connection,
            connection.begin(),
            _abandon_on_timeout(connection),
        ):
            yield connection

    @asynccontextmanager
    async def write_transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that is committed at the end."""
        async with (
            self._lifetime.limit(),
            self._turn if self._file_writer else nullcontext(),
            self._writing.begin() as connection,
            _abandon_on_timeout(connection),
        ):
            yield connection

    async def write(self, write: Callable[[Connection], Result]) -> Result:
        """Return what a function returns that writes in a transaction, which is committed unless it raises."""
        if self._file_writer is None:
            async with self.write_transaction() as connection:
                return await connection.run_sync(write)
        async with self._lifetime.limit(), self._turn:
            return await self._file_writer.run(write)

    async def write_with(self, take: AbstractAsyncContextManager[Taken], write: Callable[[Connection, Taken], None]) -> None:
        """Write what is taken from memory once a transaction is open; `take` ends after the commit, or with its error."""
        if self._file_writer is None:
            async with self.write_transaction() as connection, take as taken:
                await connection.run_sync(write, taken)
                await connection.commit()  # here, not at the end of the block: a commit that fails is an error of `take`, too
            return
        async with self._lifetime.limit(), self._turn:
            await self._file_writer.run_with(take, write)

    @asynccontextmanager
    async def migration_transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Open a write transaction whose statements may take as long as a migration does."""
        if self.dialect == "sqlite":  # its statements have no limit, and a database in memory has one connection
            async with self.write_transaction() as connection:
                yield connection
            return
        engine = self.make_engine(MIGRATION_TIMEOUT_S)
        try:
            async with self._lifetime.limit(), engine.begin() as connection, _abandon_on_timeout(connection):
                yield connection
        finally:
            await engine.dispose()

    def make_engine(self, statement_timeout_s: float | None = None) -> AsyncEngine:
        """Return an engine of one connection to PostgreSQL beside the others, to be disposed of after use."""
        engine = create_engine(self._url, 1, statement_timeout_s)
        self._lifetime.watch(engine)
        return engine

    async def fetch_all(self, query: Query) -> Sequence[Any]:
        """Return all rows of a query, in a transaction of its own."""
        return await self.shield(self._fetch(query, None))

    async def fetch_as(self, make: Callable[..., Result], query: Query) -> list[Result]:
        """Return what is made of the columns of each row of a query."""
        return await self.shield(self._fetch(query, make))

    async def _fetch(self, query: Query, make: Callable[..., Any] | None) -> list[Any]:
        if self._file_readers is not None:
            async with self._lifetime.limit():
                return await self._file_readers.run(partial(_fetch_all, query, make))
        rows: list[Any] = []
        async with self.read_transaction() as connection:
            found = await connection.execute(query)
            while some := found.fetchmany(ROWS_AT_ONCE):
                rows += some if make is None else starmap(make, some)
                if len(some) < ROWS_AT_ONCE:
                    break
                await asyncio.sleep(0)
        return rows

    async def fetch_one(self, query: Query) -> Any:
        """Return the first row of a query, or `None`."""
        rows = await self.fetch_all(query)
        return rows[0] if rows else None

    async def peek(self, query: Query) -> Any:
        """Return the first value that a query finds, or `None`: for one without values to bind, kept to be asked for ever.

        What looks for changes every second or two would else cost as much as two requests in each: SQLAlchemy's code for a
        query takes 1.2 ms of CPU where it was not used for a while, the driver's 0.1 (2026-11-28).
        """
        if self._file_readers is None:
            row = await self.fetch_one(query)
            return row[0] if row else None
        if query not in self._peeks:
            self._peeks[query] = self.compile_query(query)
        return await self.shield(self._peek(self._file_readers, self._peeks[query]))

    async def _peek(self, readers: FileThreads, sql: str) -> Any:
        async with self._lifetime.limit():
            return await readers.peek(sql)

    async def execute(self, *statements: Executable) -> int:
        """Execute statements in one transaction, and return the rows that the last one changed."""
        return await self.shield(self.write(lambda connection: [connection.execute(one).rowcount for one in statements][-1]))

    async def execute_returning(self, statement: Executable) -> Any:
        """Execute a statement that changes at most one row; return its value, or `None`."""
        return await self.shield(self.write(lambda connection: connection.execute(statement).scalar_one_or_none()))

    async def shield(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run work to its end in a task of its own, even if the caller is cancelled. `close` waits for it."""
        # A statement that is cut off takes its connection with it, and a database in memory is its connection.
        task = asyncio.create_task(work, name=getattr(work, "__name__", "database"))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio complains when no caller waits for it any more

    def give_up_after(self, seconds: float = CLOSE_TIMEOUT_S) -> None:
        """Fail all work that has not ended then, so that nothing waits for a database that does not answer."""
        self._lifetime.end_after(seconds)

    async def close(self) -> None:
        """Wait for the work under way, then close all connections, within `CLOSE_TIMEOUT_S`."""
        self.give_up_after()
        while self._tasks:  # work may begin more work
            await asyncio.wait(self._tasks)
        await self._reading.dispose()
        await self._writing.dispose()
        for threads in filter(None, (self._file_writer, self._file_readers)):
            await threads.close()
        self._lifetime.close()


def _fetch_all(query: Query, make: Callable[..., Any] | None, connection: Connection) -> list[Any]:
    rows = connection.execute(query).all()
    return list(rows if make is None else starmap(make, rows))


class HasDatabase(Protocol):
    """A store of some kind."""

    _database: Database


def run_to_end(method: Method[Owner, Parameters, Result]) -> Method[Owner, Parameters, Result]:
    """Decorate a store's method so that it is never cut off in the middle of a statement; see `Database.shield`."""

    @wraps(method)
    async def run(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self._database.shield(method(self, *args, **kwargs))

    return run


async def _do_nothing() -> None:
    """Stand for `Database.before_reading` where no other process keeps anything back."""


@asynccontextmanager
async def _abandon_on_timeout(connection: AsyncConnection) -> AsyncGenerator[None]:
    """Cut a connection that does not answer: to end its transaction in order would take as long again."""
    try:
        yield
    except TimeoutError:
        with suppress(SQLAlchemyError):
            raw = await connection.get_raw_connection()
            if terminate := getattr(raw.driver_connection, "terminate", None):  # not SQLite's, which is never silent
                terminate()
        raise
