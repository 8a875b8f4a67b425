"""Pages: comparisons that ended under load, many in one row of the database, until there is time for rows of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Column, Connection, Table, delete, select

from fanout.store.engine.text_columns import StorableText, clean_text
from fanout.store.history.records import AnswerRow, ComparisonRow, ComparisonRows
from fanout.store.tables import metadata

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

PAGE_SIZE = 128
"""The most comparisons of a page."""
ROWS_AT_ONCE = 32
"""So many comparisons are encoded without a turn for other threads, in 0.1 ms."""
DIGESTS = tuple(ComparisonRow._fields.index(name) for name in ("digest", "request_digest"))
ANSWER_DIGEST = AnswerRow._fields.index("content_digest")

comparison_pages = Table(
    "comparison_pages",
    metadata,
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # the lowest number of its comparisons
    Column("last", BigInteger, nullable=False),
    Column("rows", StorableText, nullable=False),  # JSON: see `store/history/pages.py`
)
"""Comparisons that ended under load, many in one row, until they are spread over the tables of the history."""

PageRow = tuple[int, int, str]


def encode_pages(some: Sequence[ComparisonRows]) -> list[PageRow]:
    """Return comparisons as the rows of pages. Their long texts stand in `history_texts`, as those of written ones do."""
    return [encode_page(some[start : start + PAGE_SIZE]) for start in range(0, len(some), PAGE_SIZE)]


def encode_page(some: Sequence[ComparisonRows]) -> PageRow:
    """Return comparisons as the row of one page."""
    parts = (_encode_rows(some[start : start + ROWS_AT_ONCE]) for start in range(0, len(some), ROWS_AT_ONCE))
    numbers = [one.comparison.number for one in some]
    return min(numbers), max(numbers), f"[{b','.join(parts).decode()}]"


def _encode_rows(some: Sequence[ComparisonRows]) -> bytes:
    # As lists: of a named tuple pydantic first asks what it is, which took three times as long (2026-11-28).
    plain = [([*one.comparison], [[*answer] for answer in one.answers], one.metadata) for one in some]
    return to_json(plain, bytes_mode="hex")[1:-1]


def decode_page(text: str) -> Iterator[ComparisonRows]:
    """Yield the comparisons of a page."""
    for comparison, answers, pairs in from_json(text):
        for place in DIGESTS:
            comparison[place] = _to_bytes(comparison[place])
        for answer in answers:
            answer[ANSWER_DIGEST] = _to_bytes(answer[ANSWER_DIGEST])
        yield ComparisonRows(ComparisonRow._make(comparison), [AnswerRow._make(answer) for answer in answers], pairs, {})


def _to_bytes(digest: str | None) -> bytes | None:
    return None if digest is None else bytes.fromhex(digest)


def take_page(connection: Connection, before: int) -> list[ComparisonRows]:
    """Delete the oldest page that has a comparison of a lower number than `before`; return its comparisons."""
    first = comparison_pages.c.first
    oldest = select(first).where(first < before).order_by(first).limit(1).scalar_subquery()
    taken = delete(comparison_pages).where(first == oldest).returning(comparison_pages.c.rows)
    text = connection.execute(taken).scalar_one_or_none()
    return [] if text is None else list(decode_page(text))


async def read_pages(
    connection: AsyncConnection, since: int, until: int, words: Sequence[str] = ()
) -> AsyncGenerator[list[ComparisonRows]]:
    """Yield the comparisons of each page that may have some with numbers from `since` to below `until`, newest first.

    Args:
        connection: a transaction to read in.
        since: the lowest number.
        until: the number after the highest.
        words: strings that pages without a fitting comparison are left out by: names and values that it has.
    """
    columns = comparison_pages.c
    query = select(columns.rows).where(columns.last >= since, columns.first < until).order_by(columns.last.desc())
    for word in words:
        query = query.where(columns.rows.contains(to_json(clean_text(word)).decode(), autoescape=True))
    async for (text,) in await connection.stream(query):
        yield list(decode_page(text))
