"""The processes that share a store: who they are, what they do, and when they were last heard of."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, select

from fanout.store.engine.database import Database
from fanout.store.shared_tables import processes

ProcessKind = Literal["serve", "worker", "batch"]
ProcessState = Literal["working", "draining"]
LOST_S = 15.0
"""Time after which a process that was not heard of counts as lost; as long as a lease."""
KEPT_S = 600.0
"""Time for which one that was lost is still listed."""
MAX_LISTED = 1_000


class ProcessRow(NamedTuple):
    """A process: the columns of its table, in their order, and the time at which they were read."""

    id: str
    """See `identify_process`."""
    kind: ProcessKind
    host: str
    pid: int
    version: str
    accounts: str | None
    """JSON: the accounts whose jobs it takes; `None`: all, an empty list: none."""
    state: ProcessState
    activity: str
    """JSON."""
    started: float
    seen: float
    now: float

    @property
    def is_silent(self) -> bool:
        """It was not heard of for so long that it counts as lost."""
        # A time to come was written before the machine was started anew, whose clock began again.
        return not -LOST_S <= self.now - self.seen <= LOST_S


class Processes:
    """The registry of processes in a database. Every method raises `StoreError` if it cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, row: ProcessRow) -> None:
        """Write what a process is and does now; its times are the database's, whatever the row says."""
        values = row._asdict()
        del values["now"]
        clock = self._database.lease_clock
        insert = self._database.insert(processes).values(values | {"started": clock(), "seen": clock()})
        changing = {name: insert.excluded[name] for name in ("accounts", "state", "activity", "seen")}
        await self._database.execute(insert.on_conflict_do_update(index_elements=[processes.c.id], set_=changing))

    async def remove(self, process_id: str) -> None:
        """Delete the row of a process that ends."""
        await self._database.execute(delete(processes).where(processes.c.id == process_id))

    async def sweep(self) -> None:
        """Delete the rows of processes that were lost long ago."""
        await self._database.execute(delete(processes).where(~_was_seen_within(self._database, KEPT_S)))

    async def list_processes(self) -> list[ProcessRow]:
        """Return all that are known, also lost ones, the oldest first."""
        query: Select[tuple[object, ...]] = select(processes, self._database.lease_clock().label("now"))
        return await self._database.fetch_as(ProcessRow, query.order_by(processes.c.started).limit(MAX_LISTED))


def _was_seen_within(database: Database, seconds: float) -> ColumnElement[bool]:
    now = database.lease_clock()
    return processes.c.seen.between(now - seconds, now + LOST_S)
