"""Written comparisons, read again: a page of them, or one whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.store.engine.database import Database
from fanout.store.engine.tables import answers, comparison_metadata, comparisons, history_texts
from fanout.store.history.filters import ComparisonFilter
from fanout.store.history.records import AnswerRow, ComparisonRow, ComparisonRows, StoredComparison

ROWS_AT_ONCE = 128
"""As many take the event loop for less than a millisecond."""


async def find_page(database: Database, question: ComparisonFilter) -> list[StoredComparison]:
    """The comparisons that are asked for, newest first, without their answers."""
    async with database.reading() as connection:
        rows = (await connection.execute(question.select())).all()
        found = {row.number: StoredComparison(ComparisonRow(*row)) for row in rows}
        await _fill(connection, found)
    return list(found.values())


async def find_number(database: Database, id_: str) -> int | None:
    """The number of a comparison."""
    async with database.reading() as connection:
        found: int | None = await connection.scalar(select(comparisons.c.number).where(comparisons.c.id == id_))
    return found


async def _fill(connection: AsyncConnection, found: Mapping[int, StoredComparison]) -> None:
    """Adds the entries and the metadata."""
    entries: dict[int, list[tuple[int, str, str]]] = {number: [] for number in found}
    words: dict[int, dict[str, str]] = {number: {} for number in found}
    columns, names = answers.c, comparison_metadata.c
    listed = select(columns.comparison, columns.entry, columns.model, columns.label).distinct()
    listed = listed.where(columns.comparison.in_(found)).order_by(columns.comparison, columns.entry)
    async for number, *entry in await connection.stream(listed):
        entries[number].append((entry[0], entry[1], entry[2]))
    said = select(names.comparison, names.name, names.value).where(names.comparison.in_(found))
    for number, name, value in await connection.execute(said):
        words[number][name] = value
    for number, one in found.items():
        one.entries, one.metadata = entries[number], words[number]


async def find_comparison(database: Database, id_: str) -> StoredComparison | None:
    """A comparison with all that is kept of it."""
    async with database.reading() as connection:
        row = (await connection.execute(select(comparisons).where(comparisons.c.id == id_))).one_or_none()
        if row is None:
            return None
        found = StoredComparison(ComparisonRow(*row))
        number = found.comparison.number
        await _fill(connection, {number: found})
        of_it = select(answers).where(answers.c.comparison == number).order_by(answers.c.place)
        parts = (await connection.stream(of_it)).partitions(ROWS_AT_ONCE)
        found.answers = [AnswerRow(*answer) async for rows in parts for answer in rows]
        return insert_texts(found, await _texts(connection, list(_digests(found))))


async def _texts(connection: AsyncConnection, digests: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for start in range(0, len(digests), ROWS_AT_ONCE):
        some = digests[start : start + ROWS_AT_ONCE]
        asked = select(history_texts.c.digest, history_texts.c.text).where(history_texts.c.digest.in_(some))
        found |= {row.digest: row.text for row in await connection.execute(asked)}
    return found


def summarize(rows: ComparisonRows) -> StoredComparison:
    """A comparison of these rows, without its answers."""
    entries = dict.fromkeys((answer.entry, answer.model, answer.label) for answer in rows.answers)
    return StoredComparison(rows.comparison, list(entries), rows.metadata)


def _digests(found: StoredComparison) -> Iterator[bytes]:
    held = (found.comparison.request_digest, *(answer.said_digest for answer in found.answers))
    yield from dict.fromkeys(digest for digest in held if digest)


def insert_texts(found: StoredComparison, texts: Mapping[bytes, str]) -> StoredComparison:
    """With its long texts in their places."""
    comparison = found.comparison
    if comparison.request_digest:
        found.comparison = comparison._replace(request=texts.get(comparison.request_digest))
    found.answers = [
        answer._replace(said=texts.get(answer.said_digest)) if answer.said_digest else answer for answer in found.answers
    ]
    return found
