"""Writing of ended comparisons: rows of their own, or under load pages, which are spread over those rows later."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, func, select

from fanout.store.engine.bulk_insert import insert_rows
from fanout.store.engine.database import Database
from fanout.store.engine.sums import SumsTable, take_all
from fanout.store.history.pages import PAGE_SIZE, KeptComparison, comparison_pages, decode_comparisons, encode_pages, take_page
from fanout.store.history.records import MAX_NUMBER, ComparisonRows
from fanout.store.tables import answers, comparison_metadata, comparisons, history_texts

BUSY = 64
"""Comparisons of one write, half a second, from which they go into pages: fewer leave time for rows of their own."""
MAX_PAGES = 512
"""Beyond it pages are spread also under load: readers look at each of them."""
CALM_S = 5.0
"""Time after the last page until pages are spread: a pause between two bursts is too short for it."""
PAGES_PER_REST = 2
"""Spread after each write then: 256 comparisons hold the thread for some 13 ms of half a second."""


class _HistoryStatements:
    """Statements that write a history."""

    def __init__(self, database: Database) -> None:
        # Compiled once, and handed to the driver as text: through SQLAlchemy's own insert each row holds the loop ten times
        # as long (2026-11-20, 128 rows: 1.3 ms against 0.3).
        inserts = (database.insert_or_ignore(table) for table in (comparisons, answers, comparison_metadata))
        self.add_rows = [database.compile_insert(insert) for insert in inserts]
        texts, pages = database.insert(history_texts), database.insert(comparison_pages)
        newer, again = texts.excluded.day, {name: pages.excluded[name] for name in ("last", "rows")}
        self.add_text = database.compile_insert(
            texts.on_conflict_do_update(index_elements=["digest"], set_={"day": newer}, where=history_texts.c.day < newer)
        )
        # Replaced, because a write that is tried again begins with the same comparison and has no fewer.
        self.add_page = database.compile_insert(pages.on_conflict_do_update(index_elements=["first"], set_=again))


class HistoryTables:
    """The tables of the history, as their one writer in this process sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages = 0
        """Pages to be spread, as far as this process knows."""
        self._last_page = -math.inf
        """When one was written, by the monotonic clock."""

    @cached_property
    def _statements(self) -> _HistoryStatements:
        return _HistoryStatements(self._database)  # at the first write, as no start need wait for it

    async def count_pages(self) -> None:
        """Find the pages that a process has left behind."""
        self._pages = (await self._database.fetch_one(select(func.count()).select_from(comparison_pages)))[0]

    async def write(
        self, some: Mapping[int, KeptComparison], sums: Sequence[SumsTable[Any, Any]] = (), *, is_busy: bool
    ) -> None:
        """Write comparisons by their numbers, and what waits for tables of sums, in one transaction."""

        def write(connection: Connection, taken: Sequence[tuple[SumsTable[Any, Any], Mapping[Any, Any]]]) -> None:
            self._write(connection, some, is_busy=is_busy)
            for table, waiting in taken:
                table.insert(connection, waiting)

        await self._database.write_with(take_all(sums), write)
        if is_busy:
            self._pages += math.ceil(len(some) / PAGE_SIZE)
            self._last_page = time.monotonic()

    def _write(self, connection: Connection, some: Mapping[int, KeptComparison], *, is_busy: bool) -> None:
        with_texts = [one for one in some.values() if isinstance(one, ComparisonRows)]
        texts = {digest: (digest, text, one.day) for one in with_texts for digest, text in one.texts.items()}
        # Sorted, so that two processes never wait for each other's rows.
        insert_rows(connection, self._statements.add_text, [texts[digest] for digest in sorted(texts)])
        if is_busy:
            insert_rows(connection, self._statements.add_page, encode_pages(some))
        else:
            self._insert(connection, list(decode_comparisons(some.values())))

    def _insert(self, connection: Connection, some: Sequence[ComparisonRows]) -> None:
        tables: tuple[Sequence[tuple[object, ...]], ...] = (
            [one.comparison for one in some],
            [answer for one in some for answer in one.answers],
            [(one.comparison.number, *pair) for one in some for pair in one.metadata.items()],
        )
        for statement, rows in zip(self._statements.add_rows, tables, strict=True):
            insert_rows(connection, statement, rows)

    async def rest(self) -> bool:
        """Spread a few pages unless there is, or may soon be, too much else to do; return whether more are to be spread."""
        is_calm = time.monotonic() - self._last_page >= CALM_S
        for _ in range(PAGES_PER_REST if is_calm or self._pages > MAX_PAGES else 0):
            if self._pages:
                self._pages = self._pages - 1 if await self.spread_page() else 0
        return self._pages > 0

    async def spread_page(self, before: int = MAX_NUMBER) -> bool:
        """Spread the oldest page that has a comparison of a lower number than `before`; return whether there was one."""

        def spread(connection: Connection) -> bool:
            self._insert(connection, some := take_page(connection, before))
            return bool(some)

        return await self._database.write(spread)
