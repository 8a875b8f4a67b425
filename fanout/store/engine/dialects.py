"""Statements that SQLite and PostgreSQL write differently."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Dialect, Double, Select, Table, bindparam, func, literal_column, text

if TYPE_CHECKING:  # only the dialect that is used is imported: each takes 20 ms
    from sqlalchemy.dialects import postgresql, sqlite

    Insert = sqlite.Insert | postgresql.Insert


class DialectStatements:
    """The statements of one database's dialect, `sqlite` or `postgresql`."""

    dialect: str
    sql_dialect: Dialect
    """That compiles statements for its driver."""

    @property
    def has_chunks(self) -> bool:
        """Processes share jobs: a SQLite file has one writer, and one process runs a job of its own faster."""
        return self.dialect == "postgresql"

    def insert(self, table: Table) -> Insert:
        """Return an insert that can say what becomes of a row whose key exists."""
        return import_module(f"sqlalchemy.dialects.{self.dialect}").insert(table)  # type: ignore[no-any-return]

    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an insert that leaves an existing row as it is."""
        return self.insert(table).on_conflict_do_nothing()

    def insert_or_add(self, table: Table) -> Insert:
        """Return an insert into a table of sums: every figure is added to that of an existing row."""
        insert = self.insert(table)
        key = list(table.primary_key)
        sums: dict[str, ColumnElement[Any]] = {
            # NULL is unknown, and NULL plus a figure is NULL in SQL: then the figure that is known counts.
            column.name: func.coalesce(column + insert.excluded[column.name], column, insert.excluded[column.name])
            for column in table.columns
            if column not in key
        }
        return insert.on_conflict_do_update(index_elements=key, set_=sums)

    def insert_or_replace(self, table: Table, *, where: ColumnElement[bool]) -> Insert:
        """Return an insert that replaces an existing row for which `where` holds, and leaves any other as it is."""
        insert = self.insert(table)
        key = list(table.primary_key)
        values = {column.name: insert.excluded[column.name] for column in table.columns if column not in key}
        return insert.on_conflict_do_update(index_elements=[*key], set_=values, where=where)

    def compile_insert(self, insert: Insert) -> str:
        """Return the SQL of an insert of whole rows, as the driver takes it."""
        return str(insert.compile(dialect=self.sql_dialect))

    def compile_query(self, query: Select[Any]) -> str:
        """Return the SQL of a query, its values in it."""
        return str(query.compile(dialect=self.sql_dialect, compile_kwargs={"literal_binds": True}))

    def lease_clock(self) -> ColumnElement[float]:
        """Return the seconds of a clock that all processes share, and that setting this machine's time does not change."""
        # A file belongs to one machine (its WAL is shared memory), whose time since its start is the same for all processes.
        if self.dialect == "sqlite":
            return bindparam("now", callable_=time.monotonic, type_=Double, unique=True)
        return literal_column("extract(epoch from clock_timestamp())::double precision", Double)

    def lock_schema(self, connection: Connection) -> None:
        """Let only one process at a time change the tables; SQLite has only one writer anyway."""
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('fanout schema'))"))

    def lock_for_insert(self, connection: Connection, table: Table) -> None:
        """Let the inserts of a table follow each other, so that rows are seen in the order of their numbers."""
        if self.dialect == "postgresql":  # which numbers rows when they are written, and shows them when they are committed
            connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
