"""OpenAI's batches in the database: the request, and what the batch's job cannot say. Both have the same id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypedDict

from sqlalchemy import case, func, select, tuple_, update

from fanout.store.engine.database import Database, Query
from fanout.store.jobs.records import JobState
from fanout.store.tables import batches, jobs

_UNSETTLED = select(batches.c.created).where(batches.c.settled.is_(None)).limit(1)


class BatchRow(NamedTuple):
    """A batch: the columns of its table, in their order. `request` and `errors`, the faults of its input, are JSON."""

    id: str
    created: float
    account_id: str
    request: str
    validated: float | None = None
    errors: str | None = None
    cancelling: float | None = None
    settled: float | None = None
    output_file: str | None = None
    error_file: str | None = None


class BatchChange(TypedDict, total=False):
    """New values for columns of a batch."""

    validated: float
    errors: str
    cancelling: float | None
    settled: float | None
    output_file: str | None
    error_file: str | None


class UnsettledBatch(NamedTuple):
    """A batch that is not settled, and the state of its job; `None`: it has none yet."""

    batch: BatchRow
    job_state: JobState | None


class BatchStore:
    """The batches of a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, batch: BatchRow) -> None:
        """Add a batch."""
        await self._database.execute(batches.insert().values(batch._asdict()))

    async def find(self, batch_id: str) -> BatchRow | None:
        """Return a batch; `None` if there is none of that id."""
        row = await self._database.fetch_one(select(batches).where(batches.c.id == batch_id))
        return BatchRow(*row) if row else None

    async def list_batches(
        self, *, limit: int, after: BatchRow | None = None, account_id: str | None = None
    ) -> Sequence[BatchRow]:
        """Return the newest batches first; only those that follow `after`, if it is given."""
        query = select(batches).order_by(batches.c.created.desc(), batches.c.id.desc()).limit(limit)
        if after is not None:
            # Both columns: batches of the same moment would be skipped, or listed twice, by the time alone.
            query = query.where(tuple_(batches.c.created, batches.c.id) < tuple_(after.created, after.id))
        if account_id is not None:
            query = query.where(batches.c.account_id == account_id)
        return await self._database.fetch_as(BatchRow, query)

    async def list_due(self, ended: Sequence[JobState], limit: int = 100) -> Sequence[UnsettledBatch]:
        """Return unsettled batches for which something can be done now, the oldest first; `ended` are jobs' final states."""
        if await self._database.peek(_UNSETTLED) is None:
            return []
        found = await self._database.fetch_all(_select_due(tuple(ended), limit))
        return [UnsettledBatch(BatchRow(*batch), state) for *batch, state in found]

    async def count_unread(self, account_id: str) -> tuple[int, int]:
        """Return how many batches of an account have no job yet, and how many have one whose rows are being read."""
        reads = func.coalesce(func.sum(case((jobs.c.state == "loading", 1), else_=0)), 0)
        waits = func.coalesce(func.sum(case((jobs.c.id.is_(None), 1), else_=0)), 0)
        query = select(waits, reads).select_from(batches.outerjoin(jobs, jobs.c.id == batches.c.id))
        row = await self._database.fetch_one(query.where(batches.c.account_id == account_id, batches.c.settled.is_(None)))
        return int(row[0]), int(row[1])

    async def update(self, batch_id: str, change: BatchChange) -> None:
        """Change a batch, if there is one of that id."""
        await self._database.execute(update(batches).where(batches.c.id == batch_id).values(**change))


@lru_cache(maxsize=8)  # every second while a batch is unsettled: writing the query took longer than its answer
def _select_due(ended: tuple[JobState, ...], limit: int) -> Query:
    # No job: its input is still to be validated. The join, because a batch and its job are changed separately.
    is_due = jobs.c.id.is_(None) | jobs.c.state.in_(ended) | batches.c.cancelling.is_not(None)
    query = select(batches, jobs.c.state).select_from(batches.outerjoin(jobs, jobs.c.id == batches.c.id))
    return query.where(batches.c.settled.is_(None), is_due).order_by(batches.c.created).limit(limit)
