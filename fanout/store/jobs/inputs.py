"""Inputs of jobs: their items, as they are read in, copied and worked through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Executable, func, literal, select

from fanout.core.errors import LeaseLostError
from fanout.store.engine.database import Database, run_to_end
from fanout.store.engine.text_columns import clean_text, place_text
from fanout.store.jobs.leases import lock_epochs
from fanout.store.jobs.records import InputChunk, InputItem
from fanout.store.tables import attempts, items, texts, units

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_AT_ONCE = 256
MAX_CHARS_AT_ONCE = 16 * 2**20
"""Characters of the rows that are read together."""
Key = TypeVar("Key")


class Inputs:
    """The inputs of a database's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._add_text = database.insert_or_ignore(texts)

    @run_to_end
    async def add(self, number: int, rows: Sequence[InputItem], epoch: int) -> None:
        """Add items to a job; raise `LeaseLostError` if another process has it, or it was discarded."""
        long: dict[bytes, str] = {}
        inserted = [_to_row(number, row, long) for row in rows]
        async with self._database.write_transaction() as connection:
            await _require_epoch(connection, number, epoch)
            await connection.run_sync(add_texts, self._add_text, long)
            for start in range(0, len(inserted), ROWS_AT_ONCE):
                await connection.execute(items.insert(), inserted[start : start + ROWS_AT_ONCE])

    @run_to_end
    async def copy(self, source: int, number: int, first: int, past: int, epoch: int) -> None:
        """Copy items of another job: those from number `first` on, and below `past`; raises like `add`."""
        # Copied within the database, so that no body passes through this process.
        columns = ["item", "line", "custom_id", "body", "digest"]
        query = select(literal(number, BigInteger), *(items.c[name] for name in columns))
        query = query.where(items.c.job == source, items.c.item >= first, items.c.item < past)
        async with self._database.write_transaction() as connection:
            await _require_epoch(connection, number, epoch)
            await connection.execute(items.insert().from_select(["job", *columns], query))

    async def find_repeated_ids(self, number: int, limit: int = 100) -> Sequence[tuple[str, int]]:
        """Return custom ids that occur more than once, each with the line of its last occurrence."""
        # Counted by the database: here it would take memory for every id of the input.
        query = select(items.c.custom_id, func.max(items.c.line)).where(items.c.job == number, items.c.custom_id.is_not(None))
        query = query.group_by(items.c.custom_id).having(func.count() > 1).limit(limit)
        return [(custom_id, line) for custom_id, line in await self._database.fetch_all(query)]

    async def list_custom_ids(self, number: int, first: int, past: int) -> Sequence[tuple[int, str]]:
        """Return the custom ids of the items from `first` on, and below `past`, in order, without their bodies."""
        query = select(items.c.item, items.c.custom_id).where(items.c.job == number, items.c.custom_id.is_not(None))
        query = query.where(items.c.item >= first, items.c.item < past).order_by(items.c.item)
        return [(item, custom_id) for item, custom_id in await self._database.fetch_all(query)]

    @run_to_end
    async def list_items(self, number: int, after: int, limit: int = ROWS_AT_ONCE) -> Sequence[InputItem]:
        """Return the items that follow item `after`, in order."""
        async with self._database.read_transaction() as connection:
            return await fetch_items(connection, number, items.c.item > after, limit)

    @run_to_end
    async def read_chunk(self, number: int, after: int, limit: int = ROWS_AT_ONCE) -> InputChunk:
        """Return the items that follow item `after`, in order, and what has been done for them; fewer where they are long."""
        async with self._database.read_transaction() as connection:
            found = await fetch_items(connection, number, items.c.item > after, limit)
            return await _read_progress(connection, number, found, None)

    @run_to_end
    async def read_items(self, number: int, wanted: Sequence[int], entries: Sequence[int] | None) -> InputChunk:
        """Return some items, and what has been done for them, of some entries or of all; only the first where they are long."""
        async with self._database.read_transaction() as connection:
            found = await fetch_items(connection, number, items.c.item.in_(wanted), len(wanted))
            return await _read_progress(connection, number, found, entries)


async def _require_epoch(connection: AsyncConnection, number: int, epoch: int) -> None:
    if (await connection.run_sync(lock_epochs, [(number, None)])).get((number, None)) != epoch:
        raise LeaseLostError


async def _read_progress(
    connection: AsyncConnection, number: int, found: Sequence[InputItem], entries: Sequence[int] | None
) -> InputChunk:
    if not found:
        return InputChunk([], frozenset(), {}, {})
    unit, attempt, numbers = units.c, attempts.c, [item.item for item in found]
    of_units = select(unit.item, unit.entry, unit.repeat, unit.state, unit.attempt)
    of_units = of_units.where(unit.job == number, unit.item.in_(numbers))
    of_attempts = select(attempt.item, attempt.entry, attempt.repeat, func.max(attempt.attempt))
    of_attempts = of_attempts.where(attempt.job == number, attempt.item.in_(numbers))
    if entries is not None:
        of_units, of_attempts = of_units.where(unit.entry.in_(entries)), of_attempts.where(attempt.entry.in_(entries))
    ended = (await connection.execute(of_units)).all()
    made = await connection.execute(of_attempts.group_by(attempt.item, attempt.entry, attempt.repeat))
    return InputChunk(
        found,
        closed=frozenset((item, entry, repeat) for item, entry, repeat, state, _ in ended if state != "open"),
        attempts={(item, entry, repeat): last for item, entry, repeat, last in made},
        reopened={(item, entry, repeat): last for item, entry, repeat, state, last in ended if state == "open"},
    )


def _to_row(number: int, row: InputItem, long: dict[bytes, str]) -> Mapping[str, object]:
    body, digest = place_text(row.body, long)
    custom_id = None if row.custom_id is None else clean_text(row.custom_id)
    return {"job": number, "item": row.item, "line": row.line, "custom_id": custom_id, "body": body, "digest": digest}


async def fetch_items(connection: AsyncConnection, number: int, condition: ColumnElement[bool], limit: int) -> list[InputItem]:
    """Return the items of a job that a condition chooses, in order: at most `limit`, and fewer where they are long."""
    tables, body = items.outerjoin(texts, items.c.digest == texts.c.digest), func.coalesce(items.c.body, texts.c.text)
    # Measured first: rows may be of any length, and together they must not fill the memory.
    lengths = select(items.c.item, func.length(body)).select_from(tables).where(items.c.job == number, condition)
    measured = (await connection.execute(lengths.order_by(items.c.item).limit(limit))).all()
    chosen = take_within((item, length) for item, length in measured)
    query = select(items.c.item, items.c.line, items.c.custom_id, body).select_from(tables)
    query = query.where(items.c.job == number, items.c.item.in_(chosen)).order_by(items.c.item)
    return [InputItem(*row) for row in await connection.execute(query)]


def take_within(measured: Iterable[tuple[Key, int]]) -> list[Key]:
    """Return the first of some rows, as many as together have `MAX_CHARS_AT_ONCE`, and always one."""
    taken: list[Key] = []
    total = 0
    for key, length in measured:
        total += length or 0
        if taken and total > MAX_CHARS_AT_ONCE:
            break
        taken.append(key)
    return taken


def add_texts(connection: Connection, statement: Executable, long: Mapping[bytes, str]) -> None:
    """Add long texts by digest with an insert into `texts` that ignores those that exist."""
    if long:  # sorted, so that two processes never wait for each other's rows
        connection.execute(statement, [{"digest": digest, "text": long[digest]} for digest in sorted(long)])
