"""Money of jobs that several processes run: each draws a part of what is left, spends it by itself, and gives the rest back.

What is committed never exceeds the limit: for each holder what it has recorded and what it still holds, and for those that have
left what they have recorded and what their calls that were cut off can have cost at most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Update, and_, bindparam, func, select, update

from fanout.store.engine.database import Database, run_to_end
from fanout.store.jobs.leases import LEASE_S, end_of_lease
from fanout.store.jobs.sharing_tables import job_money
from fanout.store.tables import job_counts

LEFT = ""
"""Holder of the row that has the sums of those that have left, and of what was spent before any came."""
TOLERANCE = 1e-9
"""Part of a call's price: sums of floats may end a little off."""
money = job_money.c
CHANGE = (
    update(job_money)
    .where(money.job == bindparam("of_job"), money.holder == bindparam("of_holder"))
    .values(open_usd=money.open_usd + bindparam("more_open_usd"), recorded_usd=money.recorded_usd + bindparam("more_usd"))
)


class MoneyChange(NamedTuple):
    """A change that an entry of the journal makes to its writer's money."""

    holder: str
    open_usd: float
    """More, or less, set aside for attempts that are on record and have not ended."""
    recorded_usd: float = 0.0


class Grant(NamedTuple):
    """An answer to a holder that asks for money."""

    usd: float
    """What it may spend in addition."""
    spent_usd: float
    """By all, with the most that calls which were cut off can have cost."""
    others: Sequence[str] = ()
    """The other holders."""
    is_scarce: bool = False
    """Another holder waits for money."""
    is_final: bool = False
    """There was not enough, and nothing comes back any more: nobody has money left or a call under way."""


class JobMoney:
    """The money of a database's jobs. Every method raises `StoreError` if the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._add_row = database.insert_or_ignore(job_money)

    @run_to_end
    async def join(self, number: int, holder: str) -> None:
        """Add a holder, which has nothing yet."""

        def write(connection: Connection) -> None:
            # The first one: what was spent before is what the records say.
            spent = select(func.coalesce(func.sum(job_counts.c.cost_usd), 0.0)).where(job_counts.c.job == number)
            if not self._lock(connection, number):
                connection.execute(self._add_row, [self._make_row(number, LEFT, connection.scalar(spent))])
            connection.execute(self._add_row, [self._make_row(number, holder)])
            connection.execute(update(job_money).where(_is_row(number, holder)).values(self._renew()))

        await self._database.write(write)

    @run_to_end
    async def draw(
        self,
        number: int,
        holder: str,
        limit_usd: float,
        *,
        held_usd: float,
        need_usd: float,
        wish_usd: float,
        dead_holders: Collection[str] = (),
    ) -> Grant | None:
        """Give a holder more money, and take that of holders which no longer renew their lease.

        Args:
            number: the job.
            holder: who asks.
            limit_usd: of the job.
            held_usd: what the holder keeps: for calls under way, and not used yet.
            need_usd: less is of no use; where there is less, the others give back what they do not use.
            wish_usd: the most.
            dead_holders: known to be dead, so that their leases need not run out first.

        Returns:
            `None`: its lease has run out, and what it held belongs to others.
        """

        def write(connection: Connection) -> Grant | None:
            self._lock(connection, number)
            rows, dead = self._read(connection, number, holder, dead_holders)
            if holder not in {row.holder for row in rows}:
                return None
            held, spent = _add_up(rows, holder, held_usd)
            # Only if it matters: after an outage of the database all leases have run out, and their holders renew them.
            if dead and limit_usd - spent - sum(held.values()) < need_usd:
                self._settle(connection, number, dead)
                rows, _ = self._read(connection, number, holder)
                held, spent = _add_up(rows, holder, held_usd)
            left = limit_usd - spent - sum(held.values())
            is_enough = left >= need_usd * (1 - TOLERANCE)
            others = [row for row in rows if row.holder not in (LEFT, holder)]
            is_scarce = any(row.wanted_usd for row in others)
            # Of what is left half, shared by all: so that near the limit nobody sits on what the others need.
            share = 0.0 if is_scarce else min(wish_usd, left / (2 * len(others) + 2))
            usd = max(share, min(need_usd, left), 0.0) if is_enough else 0.0
            values = {"held_usd": held_usd + usd, "wanted_usd": 0.0 if is_enough else need_usd, **self._renew()}
            connection.execute(update(job_money).where(_is_row(number, holder)).values(values))
            names = [row.holder for row in others]
            return Grant(usd, spent, names, is_scarce, is_final=not is_enough and not any(held.values()))

        return await self._database.write(write)

    async def give_back(self, number: int, holder: str, held_usd: float) -> bool | None:
        """Leave a holder with so much, renew its lease, and return whether another one needs money; `None`: it has lost it."""
        # Without a lock: whatever becomes less, harms nobody.
        other = job_money.alias("other")
        is_other = (other.c.job == number, other.c.holder != holder, other.c.lease_until > self._database.lease_clock())
        wanted = select(func.coalesce(func.max(other.c.wanted_usd), 0.0)).where(*is_other).scalar_subquery()
        values = {"held_usd": held_usd, "wanted_usd": 0.0, **self._renew()}
        statement = update(job_money).where(_is_row(number, holder)).values(values).returning(wanted)
        found: float | None = await self._database.execute_returning(statement)
        return None if found is None else found > 0

    async def adopt(self, number: int, holder: str, open_usd: float) -> None:
        """Let a holder answer for calls of one that has left, as if it had set their money aside itself."""
        change = {"open_usd": money.open_usd + open_usd, "held_usd": money.held_usd + open_usd}
        await self._database.execute(
            self._release_orphans(number, open_usd), update(job_money).where(_is_row(number, holder)).values(change)
        )

    async def release_orphans(self, number: int, open_usd: float) -> None:
        """Make money free that one that has left had set aside for calls which cost nothing."""
        await self._database.execute(self._release_orphans(number, open_usd))

    def _release_orphans(self, number: int, open_usd: float) -> Update:
        # Also while its holder is not settled yet: then its own money makes the sum right.
        return update(job_money).where(_is_row(number, LEFT)).values(open_usd=money.open_usd - open_usd)

    @run_to_end
    async def leave(self, number: int, holder: str) -> None:
        """Remove a holder; what it has not used is free for others."""

        def write(connection: Connection) -> None:
            self._lock(connection, number)
            self._settle(connection, number, [holder])

        await self._database.write(write)

    def _lock(self, connection: Connection, number: int) -> bool:
        """Let nobody else draw before the transaction ends; return whether the job has any holders' money yet."""
        return connection.scalar(select(money.job).where(_is_row(number, LEFT)).with_for_update()) is not None

    def _read(
        self, connection: Connection, number: int, holder: str, dead_holders: Collection[str] = ()
    ) -> tuple[Sequence[Any], Sequence[str]]:
        """Return the rows of a job, and those of its holders, but for one, that are dead or whose lease has run out."""
        now = self._database.lease_clock()
        # As with jobs' leases: one that ends much later than any can belongs to a time before the machine was started.
        alive = money.lease_until.between(now, now + 2 * LEASE_S).label("is_alive")
        rows = connection.execute(select(job_money, alive).where(money.job == number)).all()
        others = [row for row in rows if row.holder not in (LEFT, holder)]
        return rows, [row.holder for row in others if row.holder in dead_holders or not row.is_alive]

    def _settle(self, connection: Connection, number: int, holders: Sequence[str]) -> None:
        removed = job_money.delete().where(money.job == number, money.holder.in_(holders))
        # As they are when they go: one that was only slow may have recorded something just now.
        rows = connection.execute(removed.returning(money.recorded_usd, money.open_usd)).all()
        if rows:
            more = {"more_usd": sum(row[0] for row in rows), "more_open_usd": sum(row[1] for row in rows)}
            connection.execute(CHANGE, {"of_job": number, "of_holder": LEFT, **more})

    def _make_row(self, number: int, holder: str, recorded_usd: float | None = 0.0) -> dict[str, Any]:
        amounts = {"recorded_usd": recorded_usd, "open_usd": 0.0, "held_usd": 0.0, "wanted_usd": 0.0}
        return {"job": number, "holder": holder, **amounts, "lease_until": None}

    def _renew(self) -> dict[str, ColumnElement[float]]:
        return {"lease_until": end_of_lease(self._database)}


def apply_changes(connection: Connection, changes: Mapping[tuple[int, str], tuple[float, float]]) -> set[tuple[int, str]]:
    """Change holders' money, by job and holder; return those that hold none any more, whose calls nothing pays for."""
    lost = set()
    for key, (open_usd, recorded_usd) in sorted(changes.items()):  # sorted, so that two processes never wait for each other's
        values = {"of_job": key[0], "of_holder": key[1], "more_open_usd": open_usd, "more_usd": recorded_usd}
        if not connection.execute(CHANGE, values).rowcount:
            lost.add(key)
    return lost


def _add_up(rows: Sequence[Any], holder: str, held_usd: float) -> tuple[dict[str, float], float]:
    """Return what each holder holds, one of them so much, and what all have spent."""
    held = {row.holder: held_usd if row.holder == holder else row.held_usd for row in rows}
    return held, sum(row.recorded_usd + (row.open_usd if row.holder == LEFT else 0.0) for row in rows)


def _is_row(number: int, holder: str) -> ColumnElement[bool]:
    return and_(money.job == number, money.holder == holder)
