"""Inputs of jobs: their items, as they are read in, copied and worked through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import BigInteger, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import LeaseLostError
from fanout.store.engine.database import Database, Insert, run_to_end
from fanout.store.engine.text_columns import clean_text, place_text
from fanout.store.jobs.leases import lock_epochs
from fanout.store.jobs.records import InputChunk, InputItem
from fanout.store.tables import attempts, items, texts, units

ROWS_AT_ONCE = 256


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
            # SQLite may give the number of a discarded job to the next one: whoever still reads for the first is refused.
            if (await lock_epochs(connection, [number])).get(number) != epoch:
                raise LeaseLostError
            await add_texts(connection, self._add_text, long)
            for start in range(0, len(inserted), ROWS_AT_ONCE):
                await connection.execute(items.insert(), inserted[start : start + ROWS_AT_ONCE])

    async def copy(self, source: int, number: int, first: int, past: int) -> None:
        """Copy items of another job: those from number `first` on, and below `past`."""
        # Copied within the database, so that no body passes through this process.
        columns = ["item", "line", "custom_id", "body", "digest"]
        query = select(literal(number, BigInteger), *(items.c[name] for name in columns))
        query = query.where(items.c.job == source, items.c.item >= first, items.c.item < past)
        await self._database.execute(items.insert().from_select(["job", *columns], query))

    async def find_repeated_ids(self, number: int, limit: int = 100) -> Sequence[tuple[str, int]]:
        """Return custom ids that occur more than once, each with the line of its last occurrence."""
        # Counted by the database: here it would take memory for every id of the input.
        query = select(items.c.custom_id, func.max(items.c.line)).where(items.c.job == number, items.c.custom_id.is_not(None))
        query = query.group_by(items.c.custom_id).having(func.count() > 1).limit(limit)
        return [(custom_id, line) for custom_id, line in await self._database.fetch_all(query)]

    @run_to_end
    async def read_chunk(self, number: int, after: int, limit: int = ROWS_AT_ONCE) -> InputChunk:
        """Return the items that follow item `after`, in order, and what has been done for them."""
        unit, attempt = units.c, attempts.c
        async with self._database.read_transaction() as connection:
            found = await fetch_items(connection, number, after, limit)
            if not found:
                return InputChunk([], frozenset(), {}, {})
            first, last = found[0].item, found[-1].item
            of_units = select(unit.item, unit.entry, unit.repeat, unit.state, unit.attempt)
            of_units = of_units.where(unit.job == number, unit.item.between(first, last))
            ended = (await connection.execute(of_units)).all()
            of_attempts = select(attempt.item, attempt.entry, attempt.repeat, func.max(attempt.attempt))
            of_attempts = of_attempts.where(attempt.job == number, attempt.item.between(first, last))
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


async def fetch_items(connection: AsyncConnection, number: int, after: int, limit: int) -> list[InputItem]:
    """Return the items that follow item `after`, in order."""
    query = (
        select(items.c.item, items.c.line, items.c.custom_id, func.coalesce(items.c.body, texts.c.text))
        .select_from(items.outerjoin(texts, items.c.digest == texts.c.digest))
        .where(items.c.job == number, items.c.item > after)
        .order_by(items.c.item)
        .limit(limit)
    )
    return [InputItem(*row) for row in await connection.execute(query)]


async def add_texts(connection: AsyncConnection, statement: Insert, long: Mapping[bytes, str]) -> None:
    """Add long texts by digest with an insert into `texts` that ignores those that exist."""
    if long:  # sorted, so that two processes never wait for each other's rows
        await connection.execute(statement, [{"digest": digest, "text": long[digest]} for digest in sorted(long)])
