"""Queries for written comparisons: a page of them, or a single one with its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.store.engine.database import Database
from fanout.store.history.filters import ComparisonFilter
from fanout.store.history.records import AnswerRow, ComparisonRow, ComparisonRows, StoredComparison
from fanout.store.history.tables import answers, comparison_metadata, comparisons, history_texts

ROWS_AT_ONCE = 128
"""So many rows hold the event loop for less than a millisecond."""


async def find_page(database: Database, filter_: ComparisonFilter) -> list[StoredComparison]:
    """Return the matching comparisons, newest first, without their answers."""
    async with database.read_transaction() as connection:
        rows: Sequence[Any] = (await connection.execute(filter_.select())).all()
        found = {row.number: StoredComparison(ComparisonRow(*row)) for row in rows}
        await _fill_in(connection, found)
    return list(found.values())


async def find_number(database: Database, id_: str) -> int | None:
    """Return the number of a comparison."""
    async with database.read_transaction() as connection:
        number: int | None = await connection.scalar(select(comparisons.c.number).where(comparisons.c.id == id_))
    return number


async def find_comparison(database: Database, id_: str) -> StoredComparison | None:
    """Return a comparison with everything that is kept of it."""
    async with database.read_transaction() as connection:
        row = (await connection.execute(select(comparisons).where(comparisons.c.id == id_))).one_or_none()
        if row is None:
            return None
        found = StoredComparison(ComparisonRow(*row))
        number = found.comparison.number
        await _fill_in(connection, {number: found})
        query = select(answers).where(answers.c.comparison == number).order_by(answers.c.place)
        partitions = (await connection.stream(query)).partitions(ROWS_AT_ONCE)
        found.answers = [AnswerRow(*answer) async for rows in partitions for answer in rows]
        return insert_texts(found, await _fetch_texts(connection, list(_find_digests(found))))


async def _fill_in(connection: AsyncConnection, found: Mapping[int, StoredComparison]) -> None:
    """Add the entries and the metadata."""
    # One query for all comparisons of a page, not one for each.
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


async def _fetch_texts(connection: AsyncConnection, digests: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for start in range(0, len(digests), ROWS_AT_ONCE):
        some = digests[start : start + ROWS_AT_ONCE]
        query = select(history_texts.c.digest, history_texts.c.text).where(history_texts.c.digest.in_(some))
        found |= {row.digest: row.text for row in await connection.execute(query)}
    return found


def _find_digests(found: StoredComparison) -> Iterator[bytes]:
    digests = (found.comparison.request_digest, *(answer.content_digest for answer in found.answers))
    yield from dict.fromkeys(digest for digest in digests if digest)


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
