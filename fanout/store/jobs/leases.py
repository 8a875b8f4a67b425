"""Leases: a job, or a chunk of one, belongs to one process at a time, for as long as that process says that it is alive.

Every lease has a number, the epoch. Whoever writes for a job shows the epoch of their lease, so that a process that has lost
its lease without noticing can no longer write (a fencing token).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Connection, Table, bindparam, exists, select, update

from fanout.store.engine.connections import execute_text
from fanout.store.engine.database import Database
from fanout.store.jobs.records import JobState
from fanout.store.jobs.sharing_tables import job_chunks
from fanout.store.tables import jobs

LEASE_S = 15.0
"""How long a lease lasts unless it is renewed."""
SELECT_EPOCH = (
    select(jobs.c.epoch)
    .where(jobs.c.number == bindparam("number"))
    .with_for_update(read=True)  # nobody takes the job before the records are written
)
SELECT_CHUNK_EPOCHS = (
    select(job_chunks.c.chunk, job_chunks.c.epoch)
    .where(job_chunks.c.job == bindparam("job"), job_chunks.c.chunk.in_(bindparam("chunks", expanding=True)))
    .order_by(job_chunks.c.chunk)
    .with_for_update(read=True)
)


class Leases:
    """The leases of a database's jobs. Their times are those of `Database.lease_clock`, which all processes share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, number: int, owner: str, *, dead_owners: Iterable[str] = ()) -> int | None:
        """Take a job for a process, for `LEASE_S`; leases of processes known to be dead need not run out first.

        Returns:
            The job's epoch, to be shown with everything that is written for it; `None` if another process has it.
        """
        statement = (
            update(jobs)
            # Its own job, too: a run that could not write its end left it owned.
            .where(jobs.c.number == number, is_free(self._database, [owner, *dead_owners]))
            .values(owner=owner, epoch=jobs.c.epoch + 1, lease_until=end_of_lease(self._database))
            .returning(jobs.c.epoch)
        )
        epoch: int | None = await self._database.execute_returning(statement)
        return epoch

    async def renew(self, number: int, epoch: int, rate: float | None) -> JobState | None:
        """Extend a lease, and write the job's rate; return the job's state, or `None` if another process has it."""
        statement = (
            update(jobs)
            .where(jobs.c.number == number, jobs.c.epoch == epoch)
            .values(lease_until=end_of_lease(self._database), rate=rate)
            .returning(jobs.c.state)
        )
        state: JobState | None = await self._database.execute_returning(statement)
        return state


def is_free(database: Database, dead_owners: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that nobody has a job or chunks of it, but processes that are dead or whose lease has run out."""
    dead = [*dead_owners]
    is_ownerless = ~is_alive(database) | jobs.c.owner.in_(dead)
    return is_ownerless & ~has_live_chunks(database, jobs.c.number, dead) if database.has_chunks else is_ownerless


def has_live_chunks(database: Database, number: ColumnElement[int] | int, dead_owners: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that a process has chunks of a job."""
    chunks = job_chunks.c
    return exists().where(
        chunks.job == number, chunks.ended.is_(None), is_alive(database, job_chunks), chunks.owner.not_in([*dead_owners])
    )


def is_alive(database: Database, table: Table = jobs) -> ColumnElement[bool]:
    """Return the condition that a job or a chunk has an owner whose lease has not run out."""
    # One that ends much later than any lease can was taken before the clock was set back, or before the machine was started.
    now = database.lease_clock()
    return table.c.owner.is_not(None) & table.c.lease_until.between(now, now + 2 * LEASE_S)


def end_of_lease(database: Database) -> ColumnElement[float]:
    """Return the end of a lease that begins now."""
    return database.lease_clock() + LEASE_S


def lock_epochs(connection: Connection, leases: Iterable[tuple[int, int | None]]) -> Mapping[tuple[int, int | None], int]:
    """Return the epochs of jobs (with `None`) and chunks, which do not change before the transaction ends."""
    found: dict[tuple[int, int | None], int] = {}
    chunks: dict[int, list[int]] = {}
    for number, chunk in leases:
        if chunk is None:
            # One by one, for nearly always it is one.
            if (epoch := _lock_epoch(connection, number)) is not None:
                found[number, None] = epoch
        else:
            chunks.setdefault(number, []).append(chunk)
    for number in sorted(chunks):
        for chunk, epoch in connection.execute(SELECT_CHUNK_EPOCHS, {"job": number, "chunks": chunks[number]}):
            found[number, chunk] = epoch
    return found


def _lock_epoch(connection: Connection, number: int) -> int | None:
    if connection.dialect.name != "sqlite":
        locked: int | None = connection.scalar(SELECT_EPOCH, {"number": number})
        return locked
    # With every group of records, and SQLite has only one writer anyway.
    row = execute_text(connection, "SELECT epoch FROM jobs WHERE number = ?", (number,)).fetchone()
    return row[0] if row else None
