"""Results of jobs: their ended units and sums, and answers that other jobs can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import JSON, ColumnElement, Text, cast, func, select, tuple_

from fanout.core.usage import WORK_SUMS, WorkTotals
from fanout.store.engine.database import Database, Query, run_to_end
from fanout.store.engine.text_columns import clean_name
from fanout.store.jobs.inputs import ROWS_AT_ONCE, fetch_items, take_within
from fanout.store.jobs.records import (
    CachedAnswer,
    EndedUnit,
    InputItem,
    MeasureRow,
    Place,
    ResultFilter,
    ResultRow,
)
from fanout.store.jobs.scores import Scores
from fanout.store.tables import items, job_counts, jobs, texts, units

ItemResults = tuple[InputItem, Mapping[tuple[int, int], EndedUnit]]
"""An item, and its units that have ended, by entry and repeat."""
JOBS_AT_ONCE = 500
"""In one query: an old SQLite takes no more than 999 values."""


BODY_TEXTS = texts.alias("body_texts")
RECORD, BODY = func.coalesce(units.c.record, texts.c.text), func.coalesce(items.c.body, BODY_TEXTS.c.text)


class ResultPage(NamedTuple):
    """Some results of a job, and whether others follow."""

    rows: Sequence[ResultRow]
    has_more: bool


class Results:
    """The results of a database's jobs."""

    def __init__(self, database: Database, scores: Scores) -> None:
        self._database, self._scores = database, scores

    async def read_counts(self, numbers: Sequence[int]) -> Mapping[int, Mapping[tuple[str, str], WorkTotals]]:
        """Return the sums of jobs, by their number, by model and result."""
        counts = job_counts.c
        found: dict[int, dict[tuple[str, str], WorkTotals]] = {number: {} for number in numbers}

        def add(job: int, model: str, result: str, *sums: Any) -> None:
            found[job][model, result] = WorkTotals(*sums)

        query = select(counts.job, counts.model, counts.result, *(counts[name] for name in WORK_SUMS))
        query = query.where(counts.calls > 0).order_by(counts.job, counts.model, counts.result)
        for first in range(0, len(numbers), JOBS_AT_ONCE):
            await self._database.fetch_as(add, query.where(counts.job.in_(numbers[first : first + JOBS_AT_ONCE])))
        return found

    async def list_results(
        self, number: int, *, after: Place | None = None, limit: int = ROWS_AT_ONCE, filter_: ResultFilter | None = None
    ) -> Sequence[ResultRow]:
        """Return the rows of a page; see `read_page`."""
        return (await self.read_page(number, after, limit, filter_ or ResultFilter())).rows

    async def list_items_results(self, number: int, wanted: Sequence[int]) -> Sequence[ResultRow]:
        """Return the units of some items that have ended, in the order of the input."""
        query = _select_results(number).where(units.c.item.in_(wanted))
        return await self._add_scores(number, await self._database.fetch_as(ResultRow, query))

    @run_to_end
    async def read_page(self, number: int, after: Place | None, limit: int, filter_: ResultFilter) -> ResultPage:
        """Return units that have ended, in the order of the input: at most `limit`, and fewer where they are long.

        Args:
            number: the job.
            after: the last one of the page before.
            limit: none are returned only at the end.
            filter_: what to leave out.
        """
        chosen = _select_results(number).where(*_to_conditions(number, filter_), *_to_position(after))
        async with self._database.read_transaction() as connection:
            # Measured first: rows and answers may be of any length, and together they must not fill the memory.
            lengths = chosen.with_only_columns(func.length(RECORD) + func.length(BODY)).limit(limit + 1)
            measured = (await connection.execute(lengths)).scalars().all()
            fitting = len(take_within(enumerate(measured[:limit])))
            found: Sequence[Any] = (await connection.execute(chosen.limit(fitting))).all() if fitting else []
        rows = await self._add_scores(number, [ResultRow(*row) for row in found])
        return ResultPage(rows, has_more=len(measured) > len(rows))

    async def _add_scores(self, number: int, rows: Sequence[ResultRow]) -> Sequence[ResultRow]:
        if not rows or not (scores := await self._scores.read(number, rows[0].item, rows[-1].item)):
            return rows
        return [row._replace(scores=scores.get(row.place, ())) for row in rows]

    async def list_measures(self, number: int, first: int, past: int) -> Sequence[MeasureRow]:
        """Return the figures of ended units, without their inputs: of the items from `first` on, and below `past`."""
        unit = units.c
        # Taken out of the records by the database: the answers' texts, of any length, never come here.
        figures = self._extract(func.coalesce(unit.record, texts.c.text), "timing", "ignored", "adjusted")
        columns = (unit.item, unit.entry, unit.repeat, unit.model, unit.result)
        tokens = (unit.input_tokens, unit.output_tokens, unit.cached_tokens)
        query = select(*columns, *tokens, unit.cost_usd, unit.cached_from, figures).order_by(unit.item, unit.entry, unit.repeat)
        query = query.select_from(units.outerjoin(texts, unit.digest == texts.c.digest)).where(
            unit.job == number, unit.item >= first, unit.item < past, unit.state != "open"
        )
        return await self._database.fetch_as(MeasureRow, query)

    def _extract(self, document: ColumnElement[str], *names: str) -> ColumnElement[str]:
        """Return fields of a JSON document, as a JSON array in which a field that is not there is null."""
        if self._database.dialect == "sqlite":
            return func.json_extract(document, *(f"$.{name}" for name in names))
        fields = cast(document, JSON)
        return cast(func.json_build_array(*(fields[name] for name in names)), Text)

    @run_to_end
    async def list_items(self, number: int, after: int, limit: int) -> Sequence[ItemResults]:
        """Return items that follow item `after`, in order, with their units that have ended; fewer where they are long."""
        unit = units.c
        async with self._database.read_transaction() as connection:
            found = await fetch_items(connection, number, items.c.item > after, limit)
            if not found:
                return []
            query = select(unit.item, unit.entry, unit.repeat, unit.ended, RECORD)
            query = query.select_from(units.outerjoin(texts, unit.digest == texts.c.digest)).where(
                unit.job == number, unit.item.between(found[0].item, found[-1].item), unit.state != "open"
            )
            lengths = query.with_only_columns(unit.item, func.sum(func.length(RECORD))).group_by(unit.item).order_by(unit.item)
            measured = dict((await connection.execute(lengths)).all())
            found = found[: len(take_within((item.item, measured.get(item.item, 0)) for item in found))]
            rows = (await connection.execute(query.where(unit.item <= found[-1].item))).all()
        ended: dict[int, dict[tuple[int, int], EndedUnit]] = {}
        for item, entry, repeat, at, record in rows:
            ended.setdefault(item, {})[entry, repeat] = EndedUnit(at, record)
        return [(item, ended.get(item.item, {})) for item in found]

    async def read_records(self, number: int, item: int, entries: Sequence[int], repeat: int) -> Mapping[int, str]:
        """Return the records of ended units of one item and repeat, by entry."""
        unit = units.c
        query = select(unit.entry, RECORD).select_from(units.outerjoin(texts, unit.digest == texts.c.digest))
        query = query.where(
            unit.job == number, unit.item == item, unit.repeat == repeat, unit.entry.in_(entries), unit.state != "open"
        )
        return dict(await self._database.fetch_all(query))

    async def find_cached_answer(self, key: bytes) -> CachedAnswer | None:
        """Return an earlier answer to the question with this cache key."""
        query = (
            select(func.coalesce(units.c.record, texts.c.text), jobs.c.id, units.c.cached_from)
            .select_from(units.join(jobs, jobs.c.number == units.c.job).outerjoin(texts, units.c.digest == texts.c.digest))
            .where(units.c.cache_key == key, units.c.state == "done")
            .limit(1)
        )
        row = await self._database.fetch_one(query)
        return CachedAnswer(*row) if row else None


def _select_results(number: int) -> Query:
    unit, item = units.c, items.c
    tables = (
        units.join(items, (item.job == unit.job) & (item.item == unit.item))
        .outerjoin(texts, unit.digest == texts.c.digest)
        .outerjoin(BODY_TEXTS, item.digest == BODY_TEXTS.c.digest)
    )
    columns = (unit.item, unit.entry, unit.repeat, unit.attempt, unit.ended, unit.model, unit.result, unit.cached_from)
    query = select(*columns, RECORD, item.line, item.custom_id, BODY).select_from(tables)
    return query.where(unit.job == number, unit.state != "open").order_by(unit.item, unit.entry, unit.repeat)


def _to_position(after: Place | None) -> list[ColumnElement[bool]]:
    # By key, not by OFFSET: units end meanwhile, and late pages stay as fast as the first.
    return [] if after is None else [tuple_(units.c.item, units.c.entry, units.c.repeat) > tuple_(*after)]


def _to_conditions(number: int, filter_: ResultFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filter_.failed is not None:
        found.append(units.c.state == ("failed" if filter_.failed else "done"))
    if filter_.model is not None:
        found.append(units.c.model == clean_name(filter_.model))
    if filter_.kind is not None:
        found.append(units.c.result == filter_.kind)
    if filter_.different:
        # Counted item by item: sums over the whole job would be computed again for every page.
        same = units.alias("same")
        of_item = (same.c.job == number, same.c.item == units.c.item, same.c.state == "done")
        found.append(select(func.count(same.c.answer.distinct())).where(*of_item).scalar_subquery() > 1)
    return found
