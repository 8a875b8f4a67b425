"""Keys, filters and groups of usage: the calls that are summed together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, cast, func, select

from fanout.core.usage import USAGE_SUMS, UsageTotals
from fanout.store.engine.database import Query
from fanout.store.usage.tables import usage

ANSWERED = "answered"
Group = tuple[int | str, ...]
"""The values that a group of calls has in common, in the order of `group_by`."""
DIMENSIONS: Mapping[str, int] = {"account_id": 0, "model": 0, "provider": 0, "upstream_model": 0, "day": 86_400, "hour": 3_600}
"""Names to group usage by; for a period, its length in seconds."""


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

    def matches(self, key: UsageKey) -> bool:
        """Return whether these calls are to be reported."""
        return self.since <= key.minute < self.until and self.account_id in (None, key.account_id)

    def find_group(self, key: UsageKey) -> Group:
        """Return the group of these calls."""
        return tuple(
            key.minute // period * period if (period := DIMENSIONS[name]) else getattr(key, name) for name in self.group_by
        )

    def select(self) -> Query:
        """Return the query: a row for each group and result, with the sums."""
        groups: list[ColumnElement[Any]] = [
            (usage.c.minute // period * period).label(name) if (period := DIMENSIONS[name]) else usage.c[name]
            for name in self.group_by
        ]
        sums = [func.sum(usage.c[name]) for name in USAGE_SUMS]
        # The cast, because PostgreSQL's SUM() of bigint is a decimal number.
        typed = [cast(total, BigInteger) if name != "cost_usd" else total for name, total in zip(USAGE_SUMS, sums, strict=True)]
        query = select(*groups, usage.c.result, *typed).where(usage.c.minute >= self.since, usage.c.minute < self.until)
        if self.account_id is not None:
            query = query.where(usage.c.account_id == self.account_id)
        return query.group_by(*groups, usage.c.result).order_by(*groups)
