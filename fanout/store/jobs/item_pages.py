"""Pages of a job's items, filtered and sorted by their results, for tables with a row for each item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import JSON, ColumnElement, FromClause, Subquery, case, cast, exists, func, or_, select

from fanout.store.engine.database import Database, Query
from fanout.store.jobs.inputs import fetch_items, take_within
from fanout.store.jobs.records import InputItem, ResultRow
from fanout.store.jobs.results import BODY, BODY_TEXTS, RECORD, Results
from fanout.store.tables import items, scores, texts, units

Show = Literal["all", "errors", "different", "regressions", "disagreement"]
SortBy = Literal["input", "score_difference", "length", "latency", "cost"]
ROWS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """The items to list, and their order."""

    show: Show = "all"
    sort: SortBy = "input"
    is_descending: bool = False
    scorer: int | None = None
    """Number of the scorer by which regressions, disagreement and differences are judged; `None`: nothing is scored."""
    is_higher_better: bool = True
    baseline: int | None = None
    """Entry with which the others are compared."""
    search: str | None = None
    """Text that the prompt or an answer holds, whatever its case."""
    only: Sequence[int] | None = None
    """Numbers of items of which one must be, found otherwise."""


class ItemPages:
    """Items of a database's jobs with their results."""

    def __init__(self, database: Database, results: Results) -> None:
        self._database, self._results = database, results

    async def list_numbers(self, number: int, filter_: ItemFilter, offset: int, limit: int) -> tuple[Sequence[int], int]:
        """Return the numbers of a page of items, and how many items there are in all."""
        found = self._select(number, filter_).subquery()
        total = await self._database.fetch_one(select(func.count()).select_from(found))
        order = [found.c.key.desc() if filter_.is_descending else found.c.key, found.c.item]
        # Unknown keys last, whichever way: they are neither the greatest nor the least.
        # The item breaks ties: without it two pages may show one row twice and another never.
        query = select(found.c.item).order_by(found.c.key.is_(None), *order).offset(offset).limit(limit)
        rows = await self._database.fetch_all(query)
        return [row[0] for row in rows], int(total[0]) if total else 0

    async def read(self, number: int, wanted: Sequence[int]) -> tuple[Sequence[InputItem], Sequence[ResultRow]]:
        """Return items by their numbers, in this order, and their results: fewer items where they are long, but always one."""
        # Measured first: rows and answers may be of any length, and together they must not fill the memory.
        size = func.sum(func.length(RECORD) + func.length(BODY))
        query = select(items.c.item, size).select_from(_join_texts()).where(items.c.job == number, items.c.item.in_(wanted))
        sizes = {item: length or 0 for item, length in await self._database.fetch_all(query.group_by(items.c.item))}
        # The first always fits, or a single long row would make an empty page and end the list.
        fitting = take_within((item, sizes.get(item, 0)) for item in wanted)
        async with self._database.read_transaction() as connection:
            found = await fetch_items(connection, number, items.c.item.in_(fitting), len(fitting))
        place = {item: position for position, item in enumerate(wanted)}
        return sorted(found, key=lambda item: place[item.item]), await self._results.list_items_results(number, fitting)

    async def iterate_texts(self, number: int) -> AsyncIterator[Sequence[tuple[int, str]]]:
        """Yield the numbers of items with the JSON of their inputs and outcomes, some at a time."""
        after = -1, -1, -1
        key = (units.c.item, units.c.entry, units.c.repeat)
        query = select(*key, _to_text(self._database, RECORD), BODY).select_from(_join_texts())
        query = query.where(units.c.job == number, units.c.state != "open").order_by(*key).limit(ROWS_AT_ONCE)
        # By place, not by OFFSET, which would read all earlier rows again for each page; and no transaction stays open
        # between.
        while rows := await self._database.fetch_all(query.where(_follows(after))):
            yield [(row[0], f"{row[3] or ''}\n{row[4]}") for row in rows]
            after = tuple(rows[-1][:3])

    def _select(self, number: int, filter_: ItemFilter) -> Query:
        """Return the query of item and key, by which the items are sorted."""
        # Aggregated before the join: joined first, each item's sums would be multiplied by its scores.
        of_units, of_scores = _sum_units(number), _compare_scores(number, filter_)
        tables = items.outerjoin(of_units, of_units.c.item == items.c.item)
        tables = tables.outerjoin(of_scores, of_scores.c.item == items.c.item)
        keys: dict[SortBy, ColumnElement[object]] = {
            "input": items.c.item,
            "score_difference": of_scores.c.spread,
            "length": of_units.c.tokens,
            "latency": of_units.c.total_ms,
            "cost": of_units.c.cost_usd,
        }
        query = select(items.c.item, keys[filter_.sort].label("key")).select_from(tables).where(items.c.job == number)
        worse = of_scores.c.least < of_scores.c.base if filter_.is_higher_better else of_scores.c.greatest > of_scores.c.base
        shown: dict[Show, ColumnElement[bool]] = {
            "errors": of_units.c.failed > 0,
            "different": of_units.c.answers > 1,
            "regressions": worse,
            "disagreement": of_scores.c.spread > 0,
        }
        if filter_.show != "all":
            query = query.where(shown[filter_.show])
        if filter_.only is not None:
            query = query.where(items.c.item.in_(filter_.only))
        if filter_.search:
            query = query.where(self._holds(number, filter_.search))
        return query

    def _holds(self, number: int, text: str) -> ColumnElement[bool]:
        joined = units.outerjoin(texts, units.c.digest == texts.c.digest)
        of_item = (units.c.job == number, units.c.item == items.c.item, units.c.state != "open")
        # Escaped: `%` and `_` in a search are characters that somebody looks for.
        found = _to_text(self._database, RECORD).icontains(text, autoescape=True)
        answered = exists(select(units.c.item).select_from(joined).where(*of_item, found))
        long = exists(
            select(BODY_TEXTS.c.digest).where(
                BODY_TEXTS.c.digest == items.c.digest, BODY_TEXTS.c.text.icontains(text, autoescape=True)
            )
        )
        return or_(answered, items.c.body.icontains(text, autoescape=True), long)


def _join_texts() -> FromClause:
    joined = items.outerjoin(units, (items.c.job == units.c.job) & (items.c.item == units.c.item))
    joined = joined.outerjoin(texts, units.c.digest == texts.c.digest)
    return joined.outerjoin(BODY_TEXTS, items.c.digest == BODY_TEXTS.c.digest)


def _to_text(database: Database, record: ColumnElement[str]) -> ColumnElement[str]:
    """Return the text of an outcome: the answer, or what a failure says."""
    paths = (("completion", "choices", "0", "message", "text"), ("failure", "message"), ("failure", "partial"))
    if database.dialect == "sqlite":
        found = [func.json_extract(record, "$." + ".".join(path).replace(".0", "[0]")) for path in paths]
    else:
        found = [func.json_extract_path_text(cast(record, JSON), *path) for path in paths]
    return func.coalesce(found[0], func.coalesce(found[1], "").concat("\n").concat(func.coalesce(found[2], "")))


def _follows(place: tuple[int, int, int]) -> ColumnElement[bool]:
    item, entry, repeat = place
    unit = units.c
    return or_(unit.item > item, (unit.item == item) & or_(unit.entry > entry, (unit.entry == entry) & (unit.repeat > repeat)))


def _sum_units(number: int) -> Subquery:
    unit = units.c
    columns = (
        unit.item,
        func.sum(case((unit.state == "failed", 1), else_=0)).label("failed"),
        func.count(unit.answer.distinct()).label("answers"),
        func.max(unit.output_tokens).label("tokens"),
        func.max(unit.total_ms).label("total_ms"),
        func.sum(unit.cost_usd).label("cost_usd"),
    )
    return select(*columns).where(unit.job == number, unit.state != "open").group_by(unit.item).subquery("of_units")


def _compare_scores(number: int, filter_: ItemFilter) -> Subquery:
    """Return each item's scores of all entries, repeats averaged: the greatest, the least but the baseline's, and its own."""
    score = scores.c
    # No scorer has the number -1: without one all comparisons are null, and no item is shown as a regression.
    is_one = (score.job == number, score.scorer == (-1 if filter_.scorer is None else filter_.scorer))
    means = select(score.item, score.entry, func.avg(score.value).label("mean")).where(*is_one)
    mean = means.group_by(score.item, score.entry).subquery("means").c
    is_base = mean.entry == (-1 if filter_.baseline is None else filter_.baseline)
    # Aggregates skip null: the baseline is not compared with itself.
    others = case((is_base, None), else_=mean.mean)
    columns = (
        mean.item,
        (func.max(mean.mean) - func.min(mean.mean)).label("spread"),
        func.max(case((is_base, mean.mean))).label("base"),
        func.min(others).label("least"),
        func.max(others).label("greatest"),
    )
    return select(*columns).group_by(mean.item).subquery("of_scores")
