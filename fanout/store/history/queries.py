"""Queries for comparisons: those to list, or a single one with its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from sqlalchemy import ColumnElement, exists, func, literal_column, select

from fanout.store.engine.database import Database, Query
from fanout.store.engine.text_columns import MAX_NAME_BYTES, REPLACEMENT, clean_text
from fanout.store.history.pages import read_pages
from fanout.store.history.records import MAX_NUMBER, AnswerRow, ComparisonRow, ComparisonRows, StoredComparison
from fanout.store.tables import answers, comparison_metadata, comparisons, history_texts

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

MAX_SEARCHED = 10_000
"""Newest comparisons of an account that are searched for texts."""
MAX_CHARACTER_BYTES = 4
"""In UTF-8: a name that was cut may be so much shorter than its bound."""
ROWS_AT_ONCE = 128
"""So many rows hold the event loop for less than a millisecond."""


@dataclass(frozen=True, slots=True)
class ComparisonFilter:
    """The comparisons to list, newest first. `None`: any."""

    since: int = 0
    """The lowest number."""
    until: int = MAX_NUMBER
    """The number after the highest one."""
    account_id: str | None = None
    """Empty: comparisons without an account."""
    model: str | None = None
    """The model of an answer, as the caller wrote it."""
    label: str | None = None
    """The label of an answer; of the same one, if a model is given too."""
    metadata: Mapping[str, str] | None = None
    path: str | None = None
    """Its place: an HTTP path, or `ask` on the command line."""
    id_prefix: str | None = None
    texts: Sequence[str] = ()
    """What its request or its answers hold; the case of ASCII letters aside, as SQLite compares them."""
    status: int | None = None
    failed: bool | None = None
    """Comparisons with a failed call, or those without one."""
    limit: int = 20

    def clean(self) -> ComparisonFilter:
        """Return the filter with names as they are stored."""
        names = (self.account_id, self.model, self.label, self.path)
        account_id, model, label, path = (name if name is None else clean_text(name) for name in names)
        pairs = {clean_text(name): clean_text(value) for name, value in (self.metadata or {}).items()}
        return replace(self, account_id=account_id, model=model, label=label, path=path, metadata=pairs or None)

    def matches(self, rows: ComparisonRows) -> bool:
        """Return whether a comparison that is not written yet is to be listed."""
        comparison = rows.comparison
        return (
            self.since <= comparison.number < self.until
            and self.account_id in (None, comparison.account_id)
            and self.path in (None, comparison.path)
            and comparison.id.startswith(self.id_prefix or "")
            and self._has_texts(rows)
            and self.status in (None, comparison.status)
            and self.failed in (None, comparison.failed > 0)
            and (self.metadata or {}).items() <= rows.metadata.items()
            and any(self.model in (None, answer.model) and self.label in (None, answer.label) for answer in rows.answers)
        )

    def list_words(self) -> list[str]:
        """Return strings that every matching comparison has, as facts too, whose names are neither cleaned nor cut yet."""
        names = (self.account_id or None, self.model, self.label, self.path)
        pairs = (word for pair in (self.metadata or {}).items() for word in pair)
        words = [*(name for name in names if name is not None), *pairs]
        longest = MAX_NAME_BYTES - MAX_CHARACTER_BYTES
        return [word for word in words if REPLACEMENT not in word and len(word.encode()) <= longest]

    def _has_texts(self, rows: ComparisonRows) -> bool:
        kept = [rows.comparison.request, *(answer.content for answer in rows.answers), *rows.texts.values()]
        held = "\n".join(text for text in kept if text).lower()
        return all(_to_stored_text(text).lower() in held for text in self.texts)

    def select(self) -> Query:
        """Return the query."""
        # It walks the most selective index from its newest end, and checks the rest row by row: a page takes as long as the
        # rows that it looks at, however long the history is.
        columns, metadata = comparisons.c, [*(self.metadata or {}).items()]
        if metadata:
            (name, value), *metadata = metadata
            number: ColumnElement[int] = comparison_metadata.c.comparison
            conditions = [comparison_metadata.c.name == name, comparison_metadata.c.value == value]
            if self.model is not None or self.label is not None:
                conditions.append(exists().where(answers.c.comparison == number, *self._answer_conditions()))
        elif self.model is not None or self.label is not None:
            number, conditions = answers.c.comparison, self._answer_conditions()
        else:
            number, conditions = columns.number, []
        for name, value in metadata:
            other = comparison_metadata.alias()
            conditions.append(exists().where(other.c.comparison == number, other.c.name == name, other.c.value == value))
        conditions += [number >= self.since, number < self.until]
        if number is columns.number:
            conditions += self._comparison_conditions()
            return select(comparisons).where(*conditions).order_by(number.desc()).limit(self.limit)
        if of_comparison := self._comparison_conditions():
            conditions.append(exists().where(columns.number == number, *of_comparison))
        numbers = select(number).where(*conditions).distinct().order_by(number.desc()).limit(self.limit)
        return select(comparisons).where(columns.number.in_(numbers)).order_by(columns.number.desc())

    def _answer_conditions(self) -> list[ColumnElement[bool]]:
        values = {answers.c.model: self.model, answers.c.label: self.label}
        return [column == value for column, value in values.items() if value is not None]

    def _comparison_conditions(self) -> list[ColumnElement[bool]]:
        columns = comparisons.c
        values: dict[ColumnElement[Any], object] = {columns.account_id: self.account_id, columns.status: self.status}
        values[columns.path] = self.path
        conditions = [column == value for column, value in values.items() if value is not None]
        if self.id_prefix:
            conditions.append(columns.id.startswith(self.id_prefix, autoescape=True))
        if self.texts:
            # A text that is nowhere would otherwise be looked for in the whole history, by anyone who may read it.
            of_account = [columns.account_id == self.account_id] if self.account_id is not None else []
            numbers = select(columns.number).where(*of_account).order_by(columns.number.desc())
            oldest = numbers.limit(1).offset(MAX_SEARCHED - 1).scalar_subquery()
            conditions.append(columns.number >= func.coalesce(oldest, 0))
        conditions += [_hold_text(_to_stored_text(text)) for text in self.texts]
        if self.failed is not None:
            zero: ColumnElement[int] = literal_column("0")  # literal, as in the partial index, or SQLite does not use that
            conditions.append(columns.failed > zero if self.failed else columns.failed == zero)
        return conditions


def _to_stored_text(text: str) -> str:
    """Return a text as it stands within the JSON of requests and answers."""
    return clean_text(to_json(clean_text(text)).decode()[1:-1])


def _hold_text(text: str) -> ColumnElement[bool]:
    long_texts = select(history_texts.c.digest).where(history_texts.c.text.icontains(text, autoescape=True))
    of_answer = answers.c.content.icontains(text, autoescape=True) | answers.c.content_digest.in_(long_texts)
    return (
        comparisons.c.request.icontains(text, autoescape=True)
        | comparisons.c.request_digest.in_(long_texts)
        | exists().where(answers.c.comparison == comparisons.c.number, of_answer)
    )


async def find_page(database: Database, filter_: ComparisonFilter) -> list[StoredComparison]:
    """Return the matching comparisons, newest first, without their answers."""
    async with database.read_transaction() as connection:
        rows: Sequence[Any] = (await connection.execute(filter_.select())).all()
        found = {row.number: StoredComparison(ComparisonRow(*row)) for row in rows}
        await _fill_in(connection, found)
        found |= {one.comparison.number: one for one in await _search_pages(connection, filter_)}
    return [found[number] for number in sorted(found, reverse=True)[: filter_.limit]]


async def _search_pages(connection: AsyncConnection, filter_: ComparisonFilter) -> list[StoredComparison]:
    """Return the matching comparisons that stand in pages; at least the newest of them, up to the limit."""
    found: list[StoredComparison] = []
    searched = 0
    async with aclosing(read_pages(connection, filter_.since, filter_.until, filter_.list_words())) as pages:
        async for page in pages:
            newest = max(rows.comparison.number for rows in page)
            is_full = len(found) >= filter_.limit and newest < sorted(one.comparison.number for one in found)[-filter_.limit]
            if is_full or (filter_.texts and searched >= MAX_SEARCHED):
                break
            searched += len(page)
            looked_at = [await _with_texts(connection, rows) for rows in page] if filter_.texts else page
            found += [summarize(rows) for rows in looked_at if filter_.matches(rows)]
    return found


async def _with_texts(connection: AsyncConnection, rows: ComparisonRows) -> ComparisonRows:
    return rows._replace(texts=await _fetch_texts(connection, StoredComparison(rows.comparison, answers=rows.answers)))


async def find_comparison(database: Database, id_: str) -> StoredComparison | None:
    """Return a comparison with everything that is kept of it."""
    async with database.read_transaction() as connection:
        row = (await connection.execute(select(comparisons).where(comparisons.c.id == id_))).one_or_none()
        if row is None:
            found = await _find_in_pages(connection, id_)
            return found and insert_texts(found, await _fetch_texts(connection, found))
        found = StoredComparison(ComparisonRow(*row))
        number = found.comparison.number
        await _fill_in(connection, {number: found})
        query = select(answers).where(answers.c.comparison == number).order_by(answers.c.place)
        partitions = (await connection.stream(query)).partitions(ROWS_AT_ONCE)
        found.answers = [AnswerRow(*answer) async for rows in partitions for answer in rows]
        return insert_texts(found, await _fetch_texts(connection, found))


async def find_number(database: Database, id_: str) -> tuple[int, str] | None:
    """Return the number and the account of a comparison."""
    columns = comparisons.c
    async with database.read_transaction() as connection:
        query = select(columns.number, columns.account_id).where(columns.id == id_)
        if row := (await connection.execute(query)).one_or_none():
            return row.number, row.account_id
        found = await _find_in_pages(connection, id_)
        return (found.comparison.number, found.comparison.account_id) if found else None


async def _find_in_pages(connection: AsyncConnection, id_: str) -> StoredComparison | None:
    async with aclosing(read_pages(connection, 0, MAX_NUMBER, [id_])) as pages:
        async for page in pages:
            for rows in page:
                if rows.comparison.id == id_:
                    found = summarize(rows)
                    found.answers = rows.answers
                    return found
    return None


async def _fill_in(connection: AsyncConnection, found: Mapping[int, StoredComparison]) -> None:
    # The entries and the metadata, with one query for all comparisons of a page, not one for each.
    entries: dict[int, list[tuple[int, str, str]]] = {number: [] for number in found}
    metadata: dict[int, dict[str, str]] = {number: {} for number in found}
    columns, pairs = answers.c, comparison_metadata.c
    query = select(columns.comparison, columns.entry, columns.model, columns.label).distinct()
    query = query.where(columns.comparison.in_(found)).order_by(columns.comparison, columns.entry)
    async for number, entry, model, label in await connection.stream(query):
        entries[number].append((entry, model, label))
    query_metadata = select(pairs.comparison, pairs.name, pairs.value).where(pairs.comparison.in_(found))
    for number, name, value in await connection.execute(query_metadata):
        metadata[number][name] = value
    for number, one in found.items():
        one.entries, one.metadata = entries[number], metadata[number]


async def _fetch_texts(connection: AsyncConnection, comparison: StoredComparison) -> dict[bytes, str]:
    digests = (comparison.comparison.request_digest, *(answer.content_digest for answer in comparison.answers))
    wanted = list(dict.fromkeys(digest for digest in digests if digest))
    found: dict[bytes, str] = {}
    for start in range(0, len(wanted), ROWS_AT_ONCE):
        some = wanted[start : start + ROWS_AT_ONCE]
        query = select(history_texts.c.digest, history_texts.c.text).where(history_texts.c.digest.in_(some))
        found |= {row.digest: row.text for row in await connection.execute(query)}
    return found


def summarize(rows: ComparisonRows) -> StoredComparison:
    """Return the comparison that these rows make, without its answers."""
    entries = dict.fromkeys((answer.entry, answer.model, answer.label) for answer in rows.answers)
    return StoredComparison(rows.comparison, list(entries), rows.metadata)


def insert_texts(found: StoredComparison, texts: Mapping[bytes, str]) -> StoredComparison:
    """Put the long texts of a comparison in their places, and return it."""
    comparison = found.comparison
    if comparison.request_digest:
        found.comparison = comparison._replace(request=texts.get(comparison.request_digest))
    found.answers = [
        answer._replace(content=texts.get(answer.content_digest)) if answer.content_digest else answer
        for answer in found.answers
    ]
    return found
