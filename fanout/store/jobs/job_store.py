"""The jobs of a database: their rows, and with them their inputs, leases, journal, results and scores."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, case, func, select, update

from fanout.store.engine.database import Database, Query, run_to_end
from fanout.store.jobs.chunks import Chunks, announce, discard_chunks
from fanout.store.jobs.economy_batches import EconomyBatches
from fanout.store.jobs.inputs import Inputs
from fanout.store.jobs.item_pages import ItemPages
from fanout.store.jobs.journal import Journal
from fanout.store.jobs.leases import Leases, end_of_lease, is_alive, is_free
from fanout.store.jobs.money import JobMoney
from fanout.store.jobs.records import ENDED_STATES, OPEN_STATES, JobChange, JobRow, JobState, NewJobRow
from fanout.store.jobs.results import Results
from fanout.store.jobs.scores import Scores
from fanout.store.jobs.sharing_tables import job_chunks
from fanout.store.jobs.watches import JobWatches
from fanout.store.tables import items, jobs
from fanout.store.votes import Votes

MAX_FIRST_EPOCH = 2**31
_UNENDED = select(jobs.c.number).where(jobs.c.state.in_(("loading", *OPEN_STATES))).limit(1)
"""In the words of the index `jobs_open`, by which SQLite finds it."""
ANNOUNCED_STATES: tuple[JobState, ...] = ("queued", "cancelling")
"""Other processes have to know at once."""


class JobStore:
    """The jobs of a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.inputs = Inputs(database)
        self.leases = Leases(database)
        self.chunks = Chunks(database)
        self.journal = Journal(database)
        self.money = JobMoney(database)
        self.scores = Scores(database)
        self.results = Results(database, self.scores)
        self.item_pages = ItemPages(database, self.results)
        self.votes = Votes(database)
        self.watches = JobWatches(database)
        self.economy_batches = EconomyBatches(database)

    @property
    def is_shared(self) -> bool:
        """Processes of several machines may use the database, and run one job together."""
        return self.chunks.are_used

    async def read_clock(self) -> float:
        """Return the time, in Unix seconds, of the clock that all processes share: on PostgreSQL the server's."""
        if not self.is_shared:  # a file belongs to one machine
            return time.time()
        (now,) = await self._database.fetch_one(select(self._database.lease_clock()))
        return float(now)

    async def create(self, job: NewJobRow, owner: str) -> tuple[int, int]:
        """Add a job that is `loading` and belongs to a process; return its number and its epoch."""
        # Drawn: SQLite may give the number of a discarded job to the next, and whoever still reads for the first is refused.
        epoch = secrets.randbelow(MAX_FIRST_EPOCH)
        lease = {"owner": owner, "epoch": epoch, "lease_until": end_of_lease(self._database)}
        values = {**job._asdict(), "state": "loading", "items": 0, "units": 0, **lease}
        number: int = await self._database.execute_returning(jobs.insert().values(values).returning(jobs.c.number))
        return number, epoch

    @run_to_end
    async def discard(self, number: int) -> None:
        """Delete a job that is still `loading`, with its input."""
        async with self._database.write_transaction() as connection:
            # Only while loading: a job that was queued meanwhile belongs to whoever runs it.
            deleted = await connection.execute(jobs.delete().where(jobs.c.number == number, jobs.c.state == "loading"))
            if deleted.rowcount:
                await connection.execute(items.delete().where(items.c.job == number))

    async def find(self, job_id: str) -> JobRow | None:
        """Return a job; `None` if there is none of that id."""
        row = await self._database.fetch_one(self._select().where(jobs.c.id == job_id))
        return JobRow(*row) if row else None

    async def find_all(self, job_ids: Sequence[str]) -> Sequence[JobRow]:
        """Return the jobs of these ids that there are, in no order."""
        return await self._database.fetch_as(JobRow, self._select().where(jobs.c.id.in_(job_ids)))

    async def has_unended(self) -> bool:
        """Return whether there is any job that has not ended."""
        return await self._database.peek(_UNENDED) is not None

    async def list_jobs(
        self,
        *,
        limit: int,
        before: float | None = None,
        account_id: str | None = None,
        prefix: str = "",
        states: Sequence[JobState] = (),
    ) -> Sequence[JobRow]:
        """Return the newest jobs first: those created `before` a time, and whose ids begin with `prefix`."""
        query = self._select().order_by(jobs.c.created.desc(), jobs.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.created < before)
        if account_id is not None:
            query = query.where(jobs.c.account_id == account_id)
        if prefix:
            query = query.where(jobs.c.id.startswith(prefix, autoescape=True))
        if states:
            query = query.where(jobs.c.state.in_(states))
        return await self._database.fetch_as(JobRow, query)

    async def measure_account(self, account_id: str) -> tuple[int, int]:
        """Return the number of an account's jobs that have not ended, and the rows of all of them."""
        is_open = case((jobs.c.state.not_in(ENDED_STATES), 1), else_=0)
        sums = select(func.coalesce(func.sum(is_open), 0), func.coalesce(func.sum(jobs.c["items"]), 0))
        running, rows = await self._database.fetch_one(sums.where(jobs.c.account_id == account_id))
        return int(running), int(rows)

    async def update(
        self,
        number: int,
        change: JobChange,
        *,
        states: Sequence[JobState] = (),
        epoch: int | None = None,
        dead_owners: Iterable[str] | None = None,
    ) -> bool:
        """Change a job, and return whether all conditions held; else nothing is changed.

        Args:
            number: the job.
            change: new values of its columns.
            states: it must be in one of these.
            epoch: the caller must still have its lease, with this epoch.
            dead_owners: if given, it must be free; processes known to be dead do not own it any more.
        """
        # One statement with its conditions, not a look and then a change: another process may come in between.
        statement = update(jobs).where(jobs.c.number == number).values(**change)
        if dead_owners is not None:
            statement = statement.where(is_free(self._database, dead_owners))
        if states:
            statement = statement.where(jobs.c.state.in_(states))
        if epoch is not None:
            statement = statement.where(jobs.c.epoch == epoch)
        announced = [announce(number)] if self.chunks.are_used and change.get("state") in ANNOUNCED_STATES else []
        return await self._database.execute(*announced, statement) == 1

    @run_to_end
    async def queue(self, number: int, spec: str, *, states: Sequence[JobState], dead_owners: Iterable[str]) -> bool:
        """Queue a job again that is in one of some states and free, with its specification; return whether it was."""
        change = {"state": "queued", "reason": None, "ended": None, "owner": None, "spec": spec, "final_state": None}
        statement = update(jobs).where(jobs.c.number == number, jobs.c.state.in_(states), is_free(self._database, dead_owners))
        async with self._database.write_transaction() as connection:
            if not (await connection.execute(statement.values(**change))).rowcount:
                return False
            if self.chunks.are_used:
                await connection.run_sync(discard_chunks, number)
                await connection.execute(announce(number))
        return True

    def _select(self) -> Query:
        return select(jobs, self._list_owners().label("owners"))

    def _list_owners(self) -> ColumnElement[str | None]:
        owner = case((is_alive(self._database), jobs.c.owner))
        if not self.chunks.are_used:
            return owner
        of_chunks = select(func.string_agg(job_chunks.c.owner.distinct(), "\n"))
        of_chunks = of_chunks.where(
            job_chunks.c.job == jobs.c.number, job_chunks.c.ended.is_(None), is_alive(self._database, job_chunks)
        )
        return func.concat_ws("\n", owner, of_chunks.scalar_subquery())
