"""What is counted of calls and asked of the counts: sums over calls that ended alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select

from fanout.core.usage import USAGE_SUMS, UsageTotals
from fanout.store.engine.tables import usage as table

ANSWERED = "answered"


class UsageKey(NamedTuple):
    """What is counted together. As the columns of the table."""

    minute: int
    account_id: str
    model: str
    provider: str
    upstream_model: str
    result: str


@dataclass(slots=True)
class Sum:
    """All calls of one group."""

    group: Mapping[str, Any]
    """What it was grouped by: `day` and `hour` in Unix seconds of their start."""
    counts: UsageTotals = field(default_factory=UsageTotals)
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Calls by the failure's kind."""

    def add(self, result: str, counts: UsageTotals) -> None:
        self.counts.add(counts)
        if result == ANSWERED:
            self.answered += counts.calls
        else:
            self.failures[result] = self.failures.get(result, 0) + counts.calls


DIMENSIONS: Mapping[str, int] = {"account_id": 0, "model": 0, "provider": 0, "upstream_model": 0, "day": 86_400, "hour": 3_600}
"""What usage can be grouped by; a period's length in seconds."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """What usage is asked for."""

    since: int
    """Unix seconds of a minute's start."""
    until: int
    """The same; not included."""
    account_id: str | None = None
    """One account's; empty: calls without an account; `None`: all."""
    group_by: tuple[str, ...] = ("account_id", "model")
    most: int = 10_000
    """Groups; what is beyond is left out."""

    def takes(self, key: UsageKey) -> bool:
        return self.since <= key.minute < self.until and self.account_id in (None, key.account_id)

    def group(self, key: UsageKey) -> tuple[Any, ...]:
        return tuple(
            key.minute // period * period if (period := DIMENSIONS[name]) else getattr(key, name) for name in self.group_by
        )

    def select(self) -> Select[Any]:
        groups: list[ColumnElement[Any]] = [
            (table.c.minute // period * period).label(name) if (period := DIMENSIONS[name]) else table.c[name]
            for name in self.group_by
        ]
        sums = [func.sum(table.c[name]) for name in USAGE_SUMS]
        # SUM() of PostgreSQL's bigint is a decimal number.
        typed = [cast(total, BigInteger) if name != "cost_usd" else total for name, total in zip(USAGE_SUMS, sums, strict=True)]
        asked = select(*groups, table.c.result, *typed).where(table.c.minute >= self.since, table.c.minute < self.until)
        if self.account_id is not None:
            asked = asked.where(table.c.account_id == self.account_id)
        return asked.group_by(*groups, table.c.result).order_by(*groups)
