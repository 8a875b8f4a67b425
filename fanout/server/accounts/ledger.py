"""The use and the reservations of stored keys, in memory; written behind, and shared with other processes by the store."""

from __future__ import annotations

import calendar
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fanout.store.engine.writers import WriteBehind
from fanout.store.keys.counts import KeyCountStore, KeyUse, UseCount

MINUTE_S = 60
DAY_S = 86_400


@dataclass(slots=True)
class KeyCounts:
    """The use of one key, and of its calls in flight what they may still use."""

    key_id: str
    stored: KeyUse = field(default_factory=KeyUse)
    """As it was last read from the store."""
    unwritten: KeyUse = field(default_factory=KeyUse)
    in_flight: int = 0
    """Requests, and calls of jobs."""
    reserved_usd: float = 0.0

    def add(self, now: float, used: UseCount) -> None:
        """Count what was used now; a correction may be negative."""
        for place, table in ((int(now // DAY_S), self.unwritten.by_day), (int(now // MINUTE_S), self.unwritten.by_minute)):
            table.setdefault(place, UseCount()).add(used)

    def find_minute(self, minute: int) -> UseCount:
        """Return what was used in a minute."""
        return _sum(use.by_minute.get(minute, UseCount()) for use in (self.stored, self.unwritten))

    def sum_days(self, first_day: int | None) -> UseCount:
        """Return what was used since a day; `None`: ever."""
        uses = (self.stored, self.unwritten)
        days = (count for use in uses for day, count in use.by_day.items() if first_day is None or day >= first_day)
        return _sum((*days, *(use.before for use in uses if first_day is None)))


class KeyLedger:
    """The counts of all stored keys that have called models here."""

    def __init__(self, store: KeyCountStore, database_name: str) -> None:
        self._store = store
        self._found: dict[str, KeyCounts] = {}
        self._writer = WriteBehind("keys", database_name, self._write, lambda: len(self._list_changed()))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        async with self._writer.run():
            yield

    async def open(self, key_id: str) -> KeyCounts:
        """Return the counts of a key; raise `StoreError` if they cannot be read."""
        if key_id not in self._found:
            stored = await self._store.read([key_id], find_first_day(time.time()))
            # Another request may have opened it meanwhile.
            self._found.setdefault(key_id, KeyCounts(key_id, stored[key_id]))
        return self._found[key_id]

    async def read(self, key_id: str) -> KeyCounts:
        """Return the counts of a key with what other processes have added by now; raise `StoreError` if they cannot be read."""
        counts = await self.open(key_id)
        await self._store.before_reading()
        async with self._writer.turn:  # a write has what it writes in `stored` already
            counts.stored = (await self._store.read([key_id], find_first_day(time.time())))[key_id]
        return counts

    def find(self, key_id: str) -> KeyCounts | None:
        """Return the counts of a key that was opened."""
        return self._found.get(key_id)

    def notify(self) -> None:
        """Have what was counted written soon."""
        self._writer.notify()

    async def write(self) -> None:
        """Write now what was counted, as far as that can be done."""
        await self._writer.write()

    def _list_changed(self) -> list[KeyCounts]:
        return [counts for counts in self._found.values() if counts.unwritten.by_day]

    async def _write(self) -> None:
        changed = self._list_changed()
        if not changed:
            return
        now = time.time()
        written = {counts.key_id: counts.unwritten for counts in changed}
        for counts in changed:
            counts.stored, counts.unwritten = _join(counts.stored, counts.unwritten), KeyUse()
        try:
            stored = await self._store.add(written, find_first_day(now), int(now // MINUTE_S))
        except BaseException:
            for counts in changed:  # in `stored`, it would never be written
                counts.stored = _join(counts.stored, written[counts.key_id], -1)
                counts.unwritten = _join(counts.unwritten, written[counts.key_id])
            raise
        for counts in changed:
            counts.stored = stored[counts.key_id]


def find_first_day(now: float) -> int:
    """Return the first day of the month, since 1970."""
    today = datetime.fromtimestamp(now, UTC)
    return int(now // DAY_S) - today.day + 1


def find_next_day(now: float) -> float:
    """Return when the next day begins, in Unix seconds."""
    return (now // DAY_S + 1) * DAY_S


def find_next_month(now: float) -> float:
    """Return when the next month begins, in Unix seconds."""
    today = datetime.fromtimestamp(now, UTC)
    days = calendar.monthrange(today.year, today.month)[1]
    return (today.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)).timestamp()


def _sum(counts: Iterable[UseCount]) -> UseCount:
    total = UseCount()
    for count in counts:
        total.add(count)
    return total


def _join(one: KeyUse, other: KeyUse, sign: int = 1) -> KeyUse:
    """Return the sum of both; with a `sign` of -1 their difference."""
    made = KeyUse(before=_sum([one.before]))
    for use, factor in ((one, 1), (other, sign)):
        for source, target in ((use.by_day, made.by_day), (use.by_minute, made.by_minute)):
            for place, count in source.items():
                scaled = UseCount(count.requests * factor, count.tokens * factor, count.cost_usd * factor)
                target.setdefault(place, UseCount()).add(scaled)
    return made
