"""Times of calls by provider, as counts of steps of a scale, which any number of processes can add to and sum."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, Self

from sqlalchemy import BigInteger, cast, func, select

from fanout.core.schema import Completion, Outcome, Retry
from fanout.store.engine.database import Database, Query, run_to_end
from fanout.store.engine.sums import REST, ROWS_AT_ONCE, SumsTable
from fanout.store.engine.text_columns import clean_name
from fanout.store.tables import call_times
from fanout.store.usage import PERIOD, UsageFilter

PERIOD_S = 300
"""The shortest period that can be reported. A busy provider has some 25 rows in each, for three figures."""
ROWS_EACH = 8
"""Steps of one figure of a busy provider."""
DAYS = 31
"""For how long times are kept."""
STEP_RATIO = 1.15
"""Steps of the scale: a quantile is at most 7 % off."""
LAST_STEP = 120
"""Five hours: longer calls are counted with it."""

_STEP_STARTS_S = tuple(STEP_RATIO**step / 1e3 for step in range(LAST_STEP))
"""Where each step but the first begins."""
STEP_S = _STEP_STARTS_S[0]
"""The end of step 0."""

Figure = Literal["answer", "first_token", "wait", "rate_limit"]
"""Attempts that were answered, their first content, waits for limits; attempts that were refused for a limit, and repeated."""


class TimeKey(NamedTuple):
    """The key of a counter: the primary key of the table, in its order, without the step."""

    period: int
    account_id: str
    provider: str
    figure: Figure


class StepCounts(dict[int, int]):
    """Numbers of calls by the step of their time. Not a `Counter`, in which adding one takes twice as long."""

    def __missing__(self, step: int) -> int:
        return 0

    @property
    def calls(self) -> int:
        return sum(self.values())

    def add(self, more: Self) -> None:
        """Add other calls."""
        for step, calls in more.items():
            self[step] += calls

    def list_rows(self) -> list[tuple[int, int]]:
        """List the steps, in order, and their numbers."""
        return sorted(self.items())


find_step: Callable[[float], int] = partial(bisect_right, _STEP_STARTS_S)
"""Returns the step of a duration in seconds. Without a frame of Python's: each call has two."""


def find_quantile(steps: Mapping[int, int], share: float) -> float | None:
    """Return the duration, in seconds, that at least this share of all calls do not exceed; `None` without calls."""
    rank, seen = math.ceil(share * sum(steps.values()) - 1e-9), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= max(rank, 1):
            # The middle of the step.
            return STEP_RATIO ** (step - 0.5) / 1e3 if step else 0.0
    return None


Times = Mapping[str, Mapping[int, int]]
"""Numbers of calls by figure and step."""


class CallTimes:
    """The times of every provider's calls. Its `observe` is an observer of the Dispatcher."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.sums = SumsTable(
            database,
            call_times,
            key=TimeKey,
            start=StepCounts,
            list_rows=StepCounts.list_rows,
            rows_each=ROWS_EACH,
            clean=_clean_key,
            pool=_pool_key,
        )

    def observe(self, *events: Outcome | Retry) -> None:
        """Count the times of calls that have ended, and refusals for a limit that are followed by another attempt."""
        # No function stands between, and little is made or looked up twice: this runs for every call.
        counters, period = self.sums.counters, int(time.time()) // PERIOD_S * PERIOD_S
        whose: tuple[str | None, str] | None = None
        for event in events:
            call = event.call
            account_id, provider = call.account_id, call.target.provider
            if isinstance(event, Retry):
                if event.failure.kind == "rate_limit":
                    counters[period, account_id or "", provider or "", "rate_limit"][0] += 1
                continue
            timing = event.timing
            if call.refusal or provider is None or not timing.attempts or timing.in_batch:
                continue
            if whose is None or whose[1] is not provider or whose[0] is not account_id:
                whose = account_id, provider
                waits = counters[period, account_id or "", provider, "wait"]
                answers = counters[period, account_id or "", provider, "answer"]
            # Most wait for nothing, and finding the step takes longer than all else here.
            waits[0 if (wait_s := timing.queued_s) < STEP_S else find_step(wait_s)] += 1
            if not isinstance(event.result, Completion):
                continue
            if (call_s := timing.call_s) is not None:
                answers[find_step(call_s)] += 1
            if (first_s := timing.first_token_s) is not None:
                counters[period, account_id or "", provider, "first_token"][find_step(first_s)] += 1

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        async with self.sums.run():
            yield

    async def write(self) -> None:
        """Write now what waits, as far as that can be done."""
        await self.sums.write()

    @run_to_end
    async def report(self, filter_: UsageFilter, provider: str | None = None) -> Mapping[tuple[str, int], Times]:
        """Return the times by provider, of one or all, and start of the period.

        Raises:
            StoreError: the database cannot be read.
        """
        if filter_.account_id is not None:
            filter_ = replace(filter_, account_id=clean_name(filter_.account_id))
        found: dict[tuple[str, int], dict[str, Counter[int]]] = {}

        def add(row: Sequence[Any]) -> None:
            provider, start, figure, step, calls = row
            found.setdefault((provider, start), {}).setdefault(figure, Counter())[step] += calls

        def matches(key: TimeKey) -> bool:
            is_within = filter_.since <= key.period < filter_.until and provider in (None, key.provider)
            return is_within and filter_.account_id in (None, key.account_id)

        async with self.sums.read(matches) as (connection, unwritten):
            written = await connection.stream(_select(filter_, provider))
            async for rows in written.partitions(ROWS_AT_ONCE):
                for row in rows:
                    add(row)
        length = filter_.period_s
        for key, counts in unwritten.items():
            for step, calls in counts.items():
                add((key.provider, key.period // length * length, key.figure, step, calls))
        return found


def _select(filter_: UsageFilter, provider: str | None) -> Query:
    columns, length = call_times.c, filter_.period_s
    start = (columns.period // length * length).label(PERIOD)
    groups = (columns.provider, start, columns.figure, columns.step)
    query = select(*groups, cast(func.sum(columns.calls), BigInteger))
    query = query.where(columns.period >= filter_.since, columns.period < filter_.until)
    if filter_.account_id is not None:
        query = query.where(columns.account_id == filter_.account_id)
    if provider is not None:
        query = query.where(columns.provider == provider)
    return query.group_by(*groups)


def _clean_key(key: TimeKey) -> TimeKey:
    return key._replace(account_id=clean_name(key.account_id), provider=clean_name(key.provider))


def _pool_key(key: TimeKey, oldest: TimeKey) -> TimeKey:
    return key._replace(period=oldest.period, account_id=REST)
