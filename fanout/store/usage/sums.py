"""What is counted of calls and asked of the counts: sums over calls that ended alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select

from fanout.core.usage import Cost, Usage
from fanout.store.engine.tables import usage as table

ANSWERED = "answered"
MOST_TOKENS, MOST_USD = 10**12, 1e9
"""Of one call. What a provider claims beyond it is no figure: sums must stay numbers that a database can hold."""
NOTHING = Usage()


class UsageKey(NamedTuple):
    """What is counted together. As the columns of the table."""

    minute: int
    account_id: str
    model: str
    provider: str
    upstream_model: str
    result: str


@dataclass(slots=True)
class Counts:
    """Sums over calls that ended alike. `None`: not known of any of them."""

    calls: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    unknown_usage: int = 0
    """Answered calls whose usage the provider did not report."""
    cost_usd: float | None = None
    cost_unknown: int = 0
    """Answered calls with no known price."""

    def add_answer(self, usage: Usage | None, cost: Cost | None) -> None:
        usage = usage or NOTHING
        read, wrote = figure(usage.input_tokens), figure(usage.output_tokens)
        if read is None or wrote is None:
            self.unknown_usage += 1
        self.input_tokens = _plus(self.input_tokens, read)
        self.output_tokens = _plus(self.output_tokens, wrote)
        self.cached_tokens = _plus(self.cached_tokens, figure(usage.cached_input_tokens))
        usd = price(cost)
        if usd is None:
            self.cost_unknown += 1
        else:
            self.cost_usd = usd if self.cost_usd is None else self.cost_usd + usd

    def add(self, other: Counts) -> None:
        for name in COUNTS:
            mine, more = getattr(self, name), getattr(other, name)
            if more is not None:
                setattr(self, name, more if mine is None else mine + more)


COUNTS = tuple(Counts.__dataclass_fields__)


@dataclass(slots=True)
class Sum:
    """All calls of one group."""

    group: Mapping[str, Any]
    """What it was grouped by: `day` and `hour` in Unix seconds of their start."""
    counts: Counts = field(default_factory=Counts)
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Calls by the failure's kind."""

    def add(self, result: str, counts: Counts) -> None:
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
        sums = [func.sum(table.c[name]) for name in COUNTS]
        # SUM() of PostgreSQL's bigint is a decimal number.
        typed = [cast(total, BigInteger) if name != "cost_usd" else total for name, total in zip(COUNTS, sums, strict=True)]
        asked = select(*groups, table.c.result, *typed).where(table.c.minute >= self.since, table.c.minute < self.until)
        if self.account_id is not None:
            asked = asked.where(table.c.account_id == self.account_id)
        return asked.group_by(*groups, table.c.result).order_by(*groups)


def figure(tokens: int | None) -> int | None:
    """A count that can be one."""
    return tokens if tokens is not None and 0 <= tokens <= MOST_TOKENS else None


def price(cost: Cost | None) -> float | None:
    """A cost that can be one, in US dollars."""
    return cost.usd if cost is not None and 0 <= cost.usd < MOST_USD else None


def _plus(known: int | None, more: int | None) -> int | None:
    return more if known is None else known if more is None else known + more
