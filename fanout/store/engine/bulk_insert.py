"""Inserts of many rows with few statements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection

from fanout.store.engine.connections import execute_text

MAX_VALUES = 999
"""Of one statement, as SQLite before 3.32 has it."""
_ROW = re.compile(r"VALUES (\([?, ]+\))")


def insert_rows(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows by the SQL of an insert of one row, as the driver takes it."""
    if connection.dialect.name != "sqlite":  # PostgreSQL's driver sends them together
        if rows:
            connection.exec_driver_sql(statement, list(rows))
        return
    # Before and after each statement the thread waits for Python's lock, which a busy event loop holds: with a statement for
    # each row, 128 comparisons took 200 ms under load, and were written more slowly than they came (2026-11-27).
    start = 0
    while left := len(rows) - start:
        most = min(left, MAX_VALUES // len(rows[0]))
        count = 1 << (most.bit_length() - 1)  # few different statements, which the driver keeps prepared
        values = tuple(value for row in rows[start : start + count] for value in row)
        execute_text(connection, _repeat_row(statement, count), values)
        start += count


@lru_cache(128)
def _repeat_row(statement: str, count: int) -> str:
    return _ROW.sub(lambda found: "VALUES " + ", ".join([found[1]] * count), statement, count=1)
