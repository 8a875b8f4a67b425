"""OpenAI's batches in the database: the request, and what the batch's job cannot say. Both have the same id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from sqlalchemy import Column, Double, Index, Table, select, text, tuple_, update

from fanout.store.engine.database import Database
from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText
from fanout.store.engine.transactions import run_to_end
from fanout.store.jobs.records import JobState
from fanout.store.jobs.tables import jobs

batches = Table(
    "batches",
    metadata,
    Column("id", StorableText, primary_key=True),  # also its job's, once its input has been validated
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("request", StorableText, nullable=False),  # JSON
    Column("validated", Double),
    Column("errors", StorableText),  # JSON: the faults of its input; NULL: it has none, or is not validated yet
    Column("cancelling", Double),
    Column("settled", Double),  # when it reached its final state
    Column("output_file", StorableText),
    Column("error_file", StorableText),
    Index("batches_unsettled", "created", sqlite_where=text("settled IS NULL"), postgresql_where=text("settled IS NULL")),
)
"""Batches of OpenAI's `/v1/batches`: what their jobs cannot say."""


class BatchRow(NamedTuple):
    """A batch: the columns of its table, in their order. Times are Unix seconds."""

    id: str
    created: float
    account_id: str
    request: str
    """JSON."""
    validated: float | None = None
    errors: str | None = None
    """JSON: the faults of its input."""
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
    """The batches of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def create(self, batch: BatchRow) -> None:
        """Add a batch."""
        async with self._database.write_transaction() as connection:
            await connection.execute(batches.insert().values(batch._asdict()))

    async def find(self, batch_id: str) -> BatchRow | None:
        """Return a batch; `None` if there is none of that id."""
        rows = await self._database.fetch_all(select(batches).where(batches.c.id == batch_id))
        return BatchRow(*rows[0]) if rows else None

    async def list_batches(
        self, *, limit: int, after: BatchRow | None = None, account_id: str | None = None
    ) -> Sequence[BatchRow]:
        """Return the newest batches first; only those that follow `after`, if it is given."""
        query = select(batches).order_by(batches.c.created.desc(), batches.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(tuple_(batches.c.created, batches.c.id) < tuple_(after.created, after.id))
        if account_id is not None:
            query = query.where(batches.c.account_id == account_id)
        return [BatchRow(*row) for row in await self._database.fetch_all(query)]

    async def list_due(self, ended: Sequence[JobState], limit: int = 100) -> Sequence[UnsettledBatch]:
        """Return unsettled batches for which there is something to do now, the oldest first.

        Args:
            ended: the states of jobs that have ended.
            limit: how many at most.
        """
        # No job: its input is still to be validated. The join, because a batch and its job are changed separately.
        is_due = jobs.c.id.is_(None) | jobs.c.state.in_(ended) | batches.c.cancelling.is_not(None)
        query = select(batches, jobs.c.state).select_from(batches.outerjoin(jobs, jobs.c.id == batches.c.id))
        rows = await self._database.fetch_all(
            query.where(batches.c.settled.is_(None), is_due).order_by(batches.c.created).limit(limit)
        )
        return [UnsettledBatch(BatchRow(*batch), state) for *batch, state in rows]

    @run_to_end
    async def update(self, batch_id: str, change: BatchChange) -> None:
        """Change a batch, if there is one of that id."""
        async with self._database.write_transaction() as connection:
            await connection.execute(update(batches).where(batches.c.id == batch_id).values(**change))
