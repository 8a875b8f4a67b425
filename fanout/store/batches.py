"""OpenAI's batches in the database: what was asked, and what a job does not say of it. A batch's job has the batch's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, select, tuple_, update

from fanout.store.engine.database import Database
from fanout.store.engine.tables import batches, jobs
from fanout.store.engine.transactions import run_to_end, told


class BatchStore:
    """The batches of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def create(self, row: Mapping[str, Any]) -> None:
        """A new batch. `row` has the columns of the table."""
        async with told(self._database.writing) as connection:
            await connection.execute(batches.insert().values(**row))

    async def batch(self, id: str) -> Row[Any] | None:
        rows = await self._rows(select(batches).where(batches.c.id == id))
        return rows[0] if rows else None

    async def listed(self, *, most: int, after: Row[Any] | None = None, account_id: str | None = None) -> Sequence[Row[Any]]:
        """The newest first; behind `after`, if it is given."""
        asked = select(batches).order_by(batches.c.created.desc(), batches.c.id.desc()).limit(most)
        if after is not None:
            asked = asked.where(tuple_(batches.c.created, batches.c.id) < tuple_(after.created, after.id))
        if account_id is not None:
            asked = asked.where(batches.c.account_id == account_id)
        return await self._rows(asked)

    async def unsettled(self, ended: Sequence[str], most: int = 100) -> Sequence[Row[Any]]:
        """Batches for which something is to be done now, each with its job's `state`, the oldest first.

        Args:
            ended: the states of jobs that have ended.
        """
        due = jobs.c.id.is_(None) | jobs.c.state.in_(ended) | batches.c.cancelling.is_not(None)
        asked = select(batches, jobs.c.state).select_from(batches.outerjoin(jobs, jobs.c.id == batches.c.id))
        return await self._rows(asked.where(batches.c.settled.is_(None), due).order_by(batches.c.created).limit(most))

    @run_to_end
    async def change(self, id: str, **values: Any) -> None:
        async with told(self._database.writing) as connection:
            await connection.execute(update(batches).where(batches.c.id == id).values(**values))

    @run_to_end
    async def _rows(self, asked: Select[Any]) -> Sequence[Row[Any]]:
        async with told(self._database.reading) as connection:
            found: Sequence[Row[Any]] = (await connection.execute(asked)).all()
            return found
