"""Decisions of jobs that stop when they are decided, for all processes that run them: one of them looks, the others read.

Who looks has a lease. What it finds follows from the recorded ends alone, so that whoever looks next finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, and_, func, select, update

from fanout.store.engine.database import Database, run_to_end
from fanout.store.jobs.leases import is_alive
from fanout.store.jobs.records import UnitScore
from fanout.store.jobs.sharing_tables import job_chunks, job_watches
from fanout.store.tables import scores, units

LOOK_LEASE_S = 5.0
"""How long nobody looks after the one who did has died."""
watch = job_watches.c


class WatchState(NamedTuple):
    """What is known of a job's decision."""

    is_own: bool
    """The caller is the one who looks."""
    reach: int
    """Number of items, in the job's order, that may be sent by now."""
    dropped: Sequence[int] = ()
    """Entries that have lost."""
    decision: str | None = None
    """The sentence; `None`: it is not decided yet."""


class UnitEnd(NamedTuple):
    """The end of a unit, with its score by the watched metric, if it has one."""

    item: int
    entry: int
    repeat: int
    result: str
    score: UnitScore | None


class JobWatches:
    """The decisions of a database's jobs. Every method raises `StoreError` if the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def join(self, number: int, owner: str) -> WatchState:
        """Return what is known; who calls looks from now on, if nobody else does."""

        def write(connection: Connection) -> WatchState:
            now = self._database.lease_clock()
            is_kept = watch.lease_until.between(now, now + 2 * LOOK_LEASE_S)
            query = select(watch.owner, is_kept, watch.reach, watch.dropped, watch.decision).where(watch.job == number)
            row = connection.execute(query).one_or_none()
            if row is not None and row[0] != owner and row[1]:
                return WatchState(False, row[2], from_json(row[3]), row[4])
            # Another one may be as quick: the row takes the first.
            new = {"owner": owner, "lease_until": now + LOOK_LEASE_S}
            insert = self._database.insert(job_watches).values(job=number, reach=0, dropped="[]", **new)
            is_free = (watch.owner == owner) | ~is_kept
            taken = insert.on_conflict_do_update(index_elements=["job"], set_=new, where=is_free)
            is_own = connection.execute(taken.returning(watch.job)).one_or_none() is not None
            _, _, reach, dropped, decision = connection.execute(query).one()
            return WatchState(is_own, reach, from_json(dropped), decision)

        return await self._database.write(write)

    async def publish(self, number: int, owner: str, state: WatchState) -> bool:
        """Write what was found; return whether the caller is still the one who looks."""
        values = {"reach": state.reach, "dropped": to_json(state.dropped).decode(), "decision": state.decision}
        lease = {"lease_until": self._database.lease_clock() + LOOK_LEASE_S}
        statement = update(job_watches).where(watch.job == number, watch.owner == owner).values(**values, **lease)
        return await self._database.execute(statement) == 1

    async def count_workers(self, number: int) -> int:
        """Return the number of processes that run parts of a job, at least 1."""
        chunks = job_chunks.c
        is_it = (chunks.job == number, chunks.ended.is_(None), is_alive(self._database, job_chunks))
        (count,) = await self._database.fetch_one(select(func.count(chunks.owner.distinct())).where(*is_it))
        return max(int(count), 1)

    async def leave(self, number: int, owner: str) -> None:
        """Let another one look at once."""
        is_own = and_(watch.job == number, watch.owner == owner)
        await self._database.execute(update(job_watches).where(is_own).values(lease_until=0.0))

    async def list_ends(self, number: int, numbers: Sequence[int], scorer: int) -> Sequence[UnitEnd]:
        """Return the units of some items that have ended."""
        place = (units.c.item, units.c.entry, units.c.repeat)
        is_same = and_(
            scores.c.job == units.c.job,
            *(scores.c[column.name] == column for column in place),
            scores.c.scorer == scorer,
        )
        query = select(*place, units.c.result, scores.c.scorer, scores.c.value).select_from(units.outerjoin(scores, is_same))
        query = query.where(units.c.job == number, units.c.item.in_(numbers), units.c.state != "open").order_by(*place)
        return await self._database.fetch_as(_make_end, query)


def _make_end(item: int, entry: int, repeat: int, result: str, scorer: int | None, value: float | None) -> UnitEnd:
    return UnitEnd(item, entry, repeat, result, None if scorer is None else UnitScore(scorer, value))
