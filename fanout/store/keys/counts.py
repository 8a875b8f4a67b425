"""The use of keys: money by day, requests and tokens of the last minutes. All processes on a store add to the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from fanout.store.engine.database import Database, run_to_end
from fanout.store.key_tables import key_minutes, key_spending

KEPT_MINUTES = 2
"""This one and the last: a limit looks no further back."""


@dataclass(slots=True)
class UseCount:
    """Sums of what a key has used in some time."""

    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0

    def add(self, other: UseCount) -> None:
        """Add what was used."""
        self.requests += other.requests
        self.tokens += other.tokens
        self.cost_usd += other.cost_usd


@dataclass(slots=True)
class KeyUse:
    """The use of a key."""

    by_minute: dict[int, UseCount] = field(default_factory=dict)
    by_day: dict[int, UseCount] = field(default_factory=dict)
    """Of the days that were asked for."""
    before: UseCount = field(default_factory=UseCount)
    """Of all days before those."""


class KeyCountStore:
    """The counts in a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._add_days = database.insert_or_add(key_spending)
        self._add_minutes = database.insert_or_add(key_minutes)

    async def before_reading(self) -> None:
        """Wait until other processes of this server have written what they keep back."""
        await self._database.before_reading()

    @run_to_end
    async def add(self, used: Mapping[str, KeyUse], first_day: int, minute: int) -> Mapping[str, KeyUse]:
        """Add what keys have used; return what they have used in all, with what other processes added."""

        def write(connection: Connection) -> Mapping[str, KeyUse]:
            # Sorted, so that two processes never wait for each other's rows.
            for key_id, use in sorted(used.items()):
                for day, count in sorted(use.by_day.items()):
                    row = {"key_id": key_id, "day": day, "requests": count.requests, "tokens": count.tokens}
                    connection.execute(self._add_days, {**row, "cost_usd": count.cost_usd})
                for at, count in sorted(use.by_minute.items()):
                    row = {"key_id": key_id, "minute": at, "requests": count.requests, "tokens": count.tokens}
                    connection.execute(self._add_minutes, row)
                old = key_minutes.c.minute <= minute - KEPT_MINUTES
                connection.execute(key_minutes.delete().where(key_minutes.c.key_id == key_id, old))
            return _read(connection, list(used), first_day)

        return await self._database.write(write)

    @run_to_end
    async def read(self, key_ids: Sequence[str], first_day: int) -> Mapping[str, KeyUse]:
        """Return what keys have used: each day from `first_day` on (days since 1970), all days before, and the last minutes."""
        async with self._database.read_transaction() as connection:
            return await connection.run_sync(_read, key_ids, first_day)


def _read(connection: Connection, key_ids: Sequence[str], first_day: int) -> Mapping[str, KeyUse]:
    found = {key_id: KeyUse() for key_id in key_ids}
    days = select(key_spending).where(key_spending.c.key_id.in_(key_ids), key_spending.c.day >= first_day)
    for key_id, day, *sums in connection.execute(days):
        found[key_id].by_day[day] = UseCount(*sums)
    sums_of = (func.sum(key_spending.c[name]) for name in ("requests", "tokens", "cost_usd"))
    earlier = select(key_spending.c.key_id, *sums_of).where(key_spending.c.key_id.in_(key_ids), key_spending.c.day < first_day)
    for key_id, requests, tokens, cost in connection.execute(earlier.group_by(key_spending.c.key_id)):
        found[key_id].before = UseCount(int(requests), int(tokens), cost)
    minutes = select(key_minutes).where(key_minutes.c.key_id.in_(key_ids))
    for key_id, minute, *counts in connection.execute(minutes):
        found[key_id].by_minute[minute] = UseCount(*counts)
    return found
