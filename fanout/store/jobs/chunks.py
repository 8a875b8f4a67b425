"""Chunks: parts of a job that several processes run, each of which belongs to one of them at a time.

A job is cut when the first process comes for it, and its chunks are deleted when it ends. A chunk has whole items, so that
fusions and equal beginnings stay together. Its epoch counts its leases; the next cut of a job begins above all of them, so that
what slept through any of them can write nothing.

This is all that a queue engine would have to do for jobs: what goes on within a chunk concerns only the process that has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Executable,
    Integer,
    and_,
    column,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
    values,
)

from fanout.store.engine.database import Database, run_to_end
from fanout.store.jobs.leases import end_of_lease, has_live_chunks, is_alive
from fanout.store.jobs.records import CANCELLED, OPEN_STATES, Chunk, ChunkLoad, JobState, Standing, WorkerLoad
from fanout.store.jobs.sharing_tables import job_chunks, job_watches
from fanout.store.tables import job_counts, jobs

if TYPE_CHECKING:  # whose package imports SQLAlchemy's ORM
    from sqlalchemy.ext.asyncio import AsyncConnection

CHANNEL = "fanout_jobs"
"""On which a job's number is announced, whenever other processes may have to do something about it."""
MIN_UNITS, MAX_UNITS = 50, 200
"""Of a chunk, as far as whole items allow."""
WANTED_CHUNKS = 32
"""Of a job, so that a small one is shared evenly, too."""
MAX_REASONS = 10
GOING_ON: tuple[JobState, ...] = ("queued", "running")
"""Also `queued`: it seems to be so while one process leaves it and another one is between two chunks."""
_chunk = job_chunks.c


class Chunks:
    """The chunks of a database's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.are_used = database.has_chunks
        """Processes share jobs on this database."""

    @run_to_end
    async def claim(
        self,
        number: int,
        owner: str,
        most: int,
        *,
        held: Collection[int] = (),
        dead_owners: Iterable[str] = (),
        reach: int | None = None,
        size: int | None = None,
    ) -> Sequence[Chunk]:
        """Take chunks that no process has, for `LEASE_S`, the first ones first; a job that is queued is running then.

        Args:
            number: the job.
            owner: the process.
            most: chunks at once.
            held: those that it has; any others in its name were given to it by an answer that was lost.
            dead_owners: processes known to be dead, whose leases need not run out first.
            reach: only chunks that begin before this place.
            size: items of each chunk, if the job is to be cut; `None`: as many as are good for speed.
        """
        dead = [*dead_owners]
        async with self._database.write_transaction() as connection:
            start = update(jobs).where(jobs.c.number == number, jobs.c.state == "queued")
            # Before the lock: of two that share it, neither could change the row.
            await connection.execute(
                start.values(state="running", reason=None, started=func.coalesce(jobs.c.started, time.time()))
            )
            is_owned = and_(is_alive(self._database), jobs.c.owner.not_in(dead))
            query = select(jobs.c.state, jobs.c.final_state, is_owned, jobs.c["items"], jobs.c.units, jobs.c.epoch)
            # Shared by those that claim, and not with who ends the job: it has no chunk that is just being taken.
            job = (await connection.execute(query.where(jobs.c.number == number).with_for_update(read=True))).one_or_none()
            if job is None or job[0] != "running" or job[1] is not None or job[2]:
                return []
            items, units, epoch = job[3:]
            is_own = and_(_chunk.owner == owner, _chunk.chunk.not_in([*held]))
            is_free = and_(or_(self._is_free(dead), is_own), _chunk.first < (items if reach is None else reach))
            take = self._build_claim(number, owner, most, is_free)
            found = (await connection.execute(take)).all()
            if not found and await connection.scalar(select(_chunk.job).where(_chunk.job == number).limit(1)) is None:
                await connection.execute(build_cut(self._database, number, items, size or size_chunks(items, units), epoch))
                found = (await connection.execute(take)).all()
        return sorted(Chunk(at, first, count, lease, cut=epoch) for at, first, count, lease in found)

    def _build_claim(self, number: int, owner: str, most: int, is_free: ColumnElement[bool]) -> Executable:
        free = select(_chunk.chunk).where(_chunk.job == number, _chunk.ended.is_(None), is_free)
        free = free.order_by(_chunk.chunk).limit(most).with_for_update(skip_locked=True)
        taken = {"owner": owner, "epoch": _chunk.epoch + 1, "lease_until": end_of_lease(self._database)}
        figures = {"running": 0, "waiting": 0, "rate": None}
        statement = update(job_chunks).where(_chunk.job == number, _chunk.chunk.in_(free.scalar_subquery()))
        return statement.values(**taken, **figures).returning(_chunk.chunk, _chunk.first, _chunk.count, _chunk.epoch)

    @run_to_end
    async def renew(self, number: int, loads: Sequence[ChunkLoad]) -> tuple[Standing | None, frozenset[int]]:
        """Extend the leases of chunks of a job, and write what goes on in them.

        Returns:
            The state that the job has or is to have (`None`: there is no such job), and the chunks that are still the caller's.
        """
        query = select(jobs.c.state, jobs.c.final_state, jobs.c.reason).where(jobs.c.number == number)
        async with self._database.write_transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
            kept = (await connection.execute(self._build_renewal(number, loads))).scalars().all() if loads else ()
        if row is None:
            return None, frozenset()
        state, final_state, reason = row
        if state in ("cancelling", "cancelled"):
            return CANCELLED, frozenset(kept)
        return Standing(final_state if state in GOING_ON and final_state else state, reason), frozenset(kept)

    def _build_renewal(self, number: int, loads: Sequence[ChunkLoad]) -> Executable:
        types = {"number": BigInteger, "epoch": BigInteger, "running": BigInteger, "waiting": BigInteger, "rate": Double}
        load = values(*(column(name, types[name]) for name in ChunkLoad._fields), name="load").data(
            [tuple(one) for one in loads]
        )
        is_it = (_chunk.job == number, _chunk.chunk == load.c.number, _chunk.epoch == load.c.epoch, _chunk.ended.is_(None))
        rate = load.c.rate.cast(Double)  # text, where all are NULL
        figures = {"running": load.c.running, "waiting": load.c.waiting, "rate": rate}
        return (
            update(job_chunks).where(*is_it).values(lease_until=end_of_lease(self._database), **figures).returning(_chunk.chunk)
        )

    async def end(self, number: int, chunk: Chunk, reason: str | None = None) -> bool:
        """End a chunk of which nothing more is to be sent; return whether the caller still had it.

        Args:
            number: the job.
            chunk: the lease of it.
            reason: why units of it are left open; `None`: none is.
        """
        ended = {"ended": self._database.lease_clock(), "reason": reason, "running": 0, "waiting": 0, "rate": None}
        is_it = (_chunk.job == number, _chunk.chunk == chunk.number, _chunk.epoch == chunk.epoch)
        return await self._database.execute(update(job_chunks).where(*is_it).values(**ended)) == 1

    async def release(self, number: int, chunks: Sequence[Chunk]) -> None:
        """Give chunks back that have not ended, so that another process goes on with them at once."""
        if not chunks:
            return
        leases = [(chunk.number, chunk.epoch) for chunk in chunks]
        is_it = (_chunk.job == number, tuple_(_chunk.chunk, _chunk.epoch).in_(leases), _chunk.ended.is_(None))
        # Another epoch: what is written after this would be written by nobody's lease.
        freed = {"owner": None, "epoch": _chunk.epoch + 1, "running": 0, "waiting": 0, "rate": None}
        await self._database.execute(update(job_chunks).where(*is_it).values(**freed), announce(number))

    async def request_end(self, number: int, state: JobState, reason: str | None, cut: int | None = None) -> None:
        """Have all processes that share a job leave it, which ends it in a state; what was wanted first counts.

        With a `cut`, only if it was not cut anew: a process that was slow must not end a job that was resumed meanwhile.
        """
        wanted = update(jobs).where(jobs.c.number == number, jobs.c.state.in_(GOING_ON), jobs.c.final_state.is_(None))
        if cut is not None:
            wanted = wanted.where(jobs.c.epoch == cut)
        await self._database.execute(wanted.values(final_state=state, reason=reason), announce(number))

    @run_to_end
    async def close(self, number: int, dead_owners: Iterable[str] = ()) -> JobState | None:
        """End a job if nobody runs it any more and nothing is left, or it is to end; queue it if something is left.

        Returns:
            The state in which this call has ended it, so that of all processes one gets it; `None`: it goes on, or had ended.
        """
        async with self._database.write_transaction() as connection:
            query = select(jobs.c.state, jobs.c.final_state, jobs.c.reason, jobs.c.units).where(jobs.c.number == number)
            job = (await connection.execute(query.with_for_update())).one_or_none()
            if job is None or job.state not in OPEN_STATES:
                return None
            if await connection.scalar(select(has_live_chunks(self._database, literal(number, BigInteger), dead_owners))):
                return None
            if job.state == "cancelling":
                outcome: Standing | None = CANCELLED
            elif job.final_state:
                outcome = Standing(job.final_state, job.reason)
            else:
                outcome = await self._find_outcome(connection, number, job.units)
            await self._write_state(connection, number, outcome)
        return outcome[0] if outcome else None

    async def _find_outcome(self, connection: AsyncConnection, number: int, units: int) -> Standing | None:
        """Return how a job ends that nobody runs; `None`: chunks are left, or it was not cut yet."""
        is_open = case_count(_chunk.ended.is_(None))
        chunks, left = (await connection.execute(select(func.count(), is_open).where(_chunk.job == number))).one()
        if not chunks or left:
            return None
        ended = await connection.scalar(select(func.sum(job_counts.c.calls)).where(job_counts.c.job == number))
        if (open_units := units - int(ended or 0)) <= 0:
            return Standing("done")
        reasons = (
            select(_chunk.reason).where(_chunk.job == number, _chunk.reason.is_not(None)).distinct().order_by(_chunk.reason)
        )
        found = (await connection.execute(reasons.limit(MAX_REASONS))).scalars().all()
        return Standing("stopped", "; ".join(found) or describe_unsent(open_units))

    async def _write_state(self, connection: AsyncConnection, number: int, outcome: Standing | None) -> None:
        if outcome is None:
            queued = update(jobs).where(jobs.c.number == number, jobs.c.state == "running")
            await connection.execute(queued.values(state="queued", owner=None, rate=None))
            return
        state, reason = outcome
        ended = {"state": state, "reason": reason, "ended": time.time(), "owner": None, "rate": None, "final_state": None}
        await connection.execute(update(jobs).where(jobs.c.number == number).values(**ended))
        await connection.run_sync(discard_chunks, number)
        await connection.execute(announce(number))

    def open_listener(self, hear: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """Listen to announcements, each of them the number of a job."""
        return self._database.listener.hearing(CHANNEL, hear)

    async def list_claimable(self, numbers: Sequence[int], dead_owners: Iterable[str]) -> frozenset[int]:
        """Return those of some jobs of which a process could take a chunk now."""
        goes_on = (jobs.c.state.in_(GOING_ON), jobs.c.final_state.is_(None))
        query = select(_chunk.job).join(jobs, jobs.c.number == _chunk.job).where(_chunk.job.in_(numbers), *goes_on).distinct()
        query = query.where(_chunk.ended.is_(None), self._is_free([*dead_owners]))
        return frozenset(row[0] for row in await self._database.fetch_all(query)) if numbers else frozenset()

    async def read_loads(self, numbers: Sequence[int]) -> Mapping[int, Sequence[WorkerLoad]]:
        """Return what each process does for some jobs, when it last renewed its leases."""
        sums = [func.sum(one).cast(BigInteger) for one in (_chunk.running, _chunk.waiting)]
        query = select(_chunk.job, _chunk.owner, func.count(), *sums, func.sum(_chunk.rate))
        query = query.where(_chunk.job.in_(numbers), _chunk.ended.is_(None), is_alive(self._database, job_chunks))
        found: dict[int, list[WorkerLoad]] = {}
        for job, *load in await self._database.fetch_all(query.group_by(_chunk.job, _chunk.owner).order_by(_chunk.owner)):
            found.setdefault(job, []).append(WorkerLoad(*load))
        return found

    def _is_free(self, dead_owners: Sequence[str]) -> ColumnElement[bool]:
        return or_(~is_alive(self._database, job_chunks), _chunk.owner.in_(dead_owners))


def case_count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Return the number of rows for which a condition holds."""
    return func.count().filter(condition).cast(Integer)


def size_chunks(items: int, units: int) -> int:
    """Return the number of items of each chunk of a job."""
    wanted = min(max(units // WANTED_CHUNKS, MIN_UNITS), MAX_UNITS)
    return max(wanted * items // max(units, 1), 1)


def describe_unsent(count: int) -> str:
    """Return the reason why a job stops that has come to its end, and has units left."""
    return f"{count} units were not sent: the configured models now produce fewer calls than when the job was created"


def announce(number: int) -> Executable:
    """Return the statement that tells all processes, once it is committed, to look at a job."""
    return select(func.pg_notify(CHANNEL, str(number)))


def build_cut(database: Database, number: int, items: int, size: int, epoch: int) -> Executable:
    """Return the insert of a job's chunks: one statement, however many there are."""
    at: ColumnElement[int] = func.generate_series(0, (items - 1) // size).column_valued("at")
    values_ = (number, at, at * size, func.least(size, items - at * size), epoch, 0, 0)
    rows = select(*(value if isinstance(value, ColumnElement) else literal(value, BigInteger) for value in values_))
    columns = ["job", "chunk", "first", "count", "epoch", "running", "waiting"]
    return database.insert(job_chunks).from_select(columns, rows).on_conflict_do_nothing()


def discard_chunks(connection: Connection, number: int) -> None:
    """Delete the chunks of a job, which is cut anew when it is run again, and what it has decided so far."""
    highest = select(func.coalesce(func.max(_chunk.epoch), 0)).where(_chunk.job == number).scalar_subquery()
    # Above all that there were: a process that still has one of them could else write once more.
    connection.execute(update(jobs).where(jobs.c.number == number).values(epoch=func.greatest(jobs.c.epoch, highest) + 1))
    connection.execute(job_chunks.delete().where(_chunk.job == number))
    connection.execute(job_watches.delete().where(job_watches.c.job == number))
