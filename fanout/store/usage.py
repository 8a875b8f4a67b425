"""The usage ledger: calls are counted as they end, written soon, and summed on request."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, cast, func, select

from fanout.core.schema import Failure, Outcome, Retry
from fanout.core.usage import USAGE_SUMS, UsageTotals
from fanout.store.engine.database import Database, Query, run_to_end
from fanout.store.engine.sums import REST, ROWS_AT_ONCE, SumsTable
from fanout.store.engine.text_columns import clean_name
from fanout.store.tables import usage

ANSWERED = "answered"
MAX_FOUND_MODELS = 500
"""Models without an entry that a process counts by name, once they have answered."""
DIMENSIONS: Mapping[str, int] = {"account_id": 0, "model": 0, "provider": 0, "upstream_model": 0, "day": 86_400, "hour": 3_600}
"""Names to group usage by; for a period, its length in seconds."""
PERIOD = "period"
"""The dimension whose length is chosen: `UsageFilter.period_s`."""
Group = tuple[int | str, ...]
"""The values that a group of calls has in common, in the order of `group_by`."""


class UsageKey(NamedTuple):
    """The key of a counter: the primary key of the table, in its order."""

    minute: int
    account_id: str
    model: str
    provider: str
    upstream_model: str
    result: str


@dataclass(slots=True)
class GroupUsage:
    """The usage of all calls of one group."""

    group: Mapping[str, int | str]
    """Its values by dimension; `day` and `hour` in Unix seconds of their start."""
    totals: UsageTotals = field(default_factory=UsageTotals)
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Calls by the failure's kind."""

    def add(self, result: str, totals: UsageTotals) -> None:
        """Add calls that ended alike."""
        self.totals.add(totals)
        if result == ANSWERED:
            self.answered += totals.calls
        else:
            self.failures[result] = self.failures.get(result, 0) + totals.calls


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """The calls to report, and their groups."""

    since: int
    """The first minute, in Unix seconds of its start."""
    until: int
    """The minute after the last one."""
    account_id: str | None = None
    """One account's; empty: calls without an account; `None`: all."""
    group_by: tuple[str, ...] = ("account_id", "model")
    limit: int = 10_000
    """The largest number of groups; further ones are left out."""
    period_s: int = 0
    """Length of the dimension `PERIOD`, in seconds."""

    def matches(self, key: UsageKey) -> bool:
        """Return whether these calls are to be reported."""
        return self.since <= key.minute < self.until and self.account_id in (None, key.account_id)

    def find_group(self, key: UsageKey) -> Group:
        """Return the group of these calls."""
        return tuple(
            key.minute // period * period if (period := self._find_length(name)) else getattr(key, name)
            for name in self.group_by
        )

    def _find_length(self, name: str) -> int:
        return self.period_s if name == PERIOD else DIMENSIONS[name]

    def select(self) -> Query:
        """Return the query: a row for each group and result, with the sums."""
        groups: list[ColumnElement[Any]] = [
            (usage.c.minute // period * period).label(name) if (period := self._find_length(name)) else usage.c[name]
            for name in self.group_by
        ]
        sums = [func.sum(usage.c[name]) for name in USAGE_SUMS]
        # The cast, because PostgreSQL's SUM() of bigint is a decimal number.
        typed = [cast(total, BigInteger) if name != "cost_usd" else total for name, total in zip(USAGE_SUMS, sums, strict=True)]
        query = select(*groups, usage.c.result, *typed).where(usage.c.minute >= self.since, usage.c.minute < self.until)
        if self.account_id is not None:
            query = query.where(usage.c.account_id == self.account_id)
        return query.group_by(*groups, usage.c.result).order_by(*groups)


class UsageLedger:
    """The usage of accounts and models. Its `observe` is an observer of the Dispatcher."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: set[str] = set()
        self.sums = SumsTable(
            database, usage, key=UsageKey, start=UsageTotals, list_rows=_list_rows, clean=_clean_key, pool=_pool_key
        )

    def observe(self, *events: Outcome | Retry) -> None:
        """Count calls that have ended."""
        # No function stands between, and little is made: this runs for every call.
        counters, minute = self.sums.counters, int(time.time()) // 60 * 60
        for event in events:
            if isinstance(event, Retry):
                continue
            call, result = event.call, event.result
            target, ended = call.target, result.kind if isinstance(result, Failure) else ANSWERED
            if (model := target.listed_as) is None:
                model = target.name if self._is_found(target.name, is_answered=ended == ANSWERED) else ""
            upstream_model = (target.model or "") if model else ""
            totals = counters[minute, call.account_id or "", model, target.provider or "", upstream_model, ended]
            if isinstance(result, Failure):
                totals.add_failure()
            else:
                totals.add_answer(result.usage, None if event.cost is None else event.cost.usd)

    def _is_found(self, model: str, *, is_answered: bool) -> bool:
        # Callers can invent any number of names, and some servers answer to every one.
        if is_answered and len(self._found) < MAX_FOUND_MODELS:
            self._found.add(model)
        return is_answered and model in self._found

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        async with self.sums.run():
            yield

    async def write(self) -> None:
        """Write now what waits, as far as that can be done."""
        await self.sums.write()

    @run_to_end
    async def report(self, filter_: UsageFilter) -> list[GroupUsage]:
        """Return the usage by group, sorted by the groups. Every call is in it once, whether written yet or not.

        Raises:
            StoreError: the database cannot be read.
        """
        if filter_.account_id is not None:
            filter_ = replace(filter_, account_id=clean_name(filter_.account_id))
        found: dict[Group, GroupUsage] = {}

        def add(group: Group, result: str, totals: UsageTotals) -> None:
            if group not in found:
                if len(found) >= filter_.limit:
                    return
                found[group] = GroupUsage(dict(zip(filter_.group_by, group, strict=True)))
            found[group].add(result, totals)

        width = len(filter_.group_by)
        async with self.sums.read(filter_.matches) as (connection, unwritten):
            written = await connection.stream(filter_.select())
            async for rows in written.partitions(ROWS_AT_ONCE):
                for row in rows:
                    add(tuple(row[:width]), row[width], UsageTotals(*row[width + 1 :]))
        for key, totals in unwritten.items():
            add(filter_.find_group(key), key.result, totals)
        return [found[group] for group in sorted(found)]


def _list_rows(totals: UsageTotals) -> list[tuple[int | float | None, ...]]:
    return [tuple(totals.as_columns().values())]


def _clean_key(key: UsageKey) -> UsageKey:
    return UsageKey(key.minute, *map(clean_name, key[1:]))


def _pool_key(key: UsageKey, oldest: UsageKey) -> UsageKey:
    return UsageKey(oldest.minute, REST, REST, key.provider, REST, key.result)
