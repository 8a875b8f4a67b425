"""Pages: comparisons that ended under load, many in one row of the database, until there is time for rows of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Column, Connection, Table, delete, select

from fanout.store.engine.text_columns import StorableText, clean_text
from fanout.store.history.records import AnswerRow, ComparisonRow, ComparisonRows
from fanout.store.tables import metadata

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

PAGE_SIZE = 128
"""The most comparisons of a page."""
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


@dataclass(slots=True, frozen=True)
class EncodedRows:
    """The rows of a comparison without long texts, encoded as soon as they are made.

    Kept as rows until the next write, those of half a second are megabytes of small objects, which have left the processor's
    caches by then.
    """

    number: int
    json: bytes

    @classmethod
    def encode(cls, rows: ComparisonRows) -> EncodedRows:
        """Encode rows."""
        # As lists: of a named tuple pydantic first asks what it is, which took three times as long (2026-11-28).
        plain = ([*rows.comparison], [[*answer] for answer in rows.answers], rows.metadata)
        return cls(rows.comparison.number, to_json(plain, bytes_mode="hex"))

    def decode(self) -> ComparisonRows:
        """Return the rows."""
        return _decode(*from_json(self.json))


def encode_pages(some: Sequence[ComparisonRows | EncodedRows]) -> list[PageRow]:
    """Return comparisons as the rows of pages. Their long texts stand in `history_texts`, as those of written ones do."""
    return [encode_page(some[start : start + PAGE_SIZE]) for start in range(0, len(some), PAGE_SIZE)]


def encode_page(some: Sequence[ComparisonRows | EncodedRows]) -> PageRow:
    """Return comparisons as the row of one page."""
    encoded = [one if isinstance(one, EncodedRows) else EncodedRows.encode(one) for one in some]
    numbers = [one.number for one in encoded]
    return min(numbers), max(numbers), f"[{b','.join([one.json for one in encoded]).decode()}]"


def decode_page(text: str) -> Iterator[ComparisonRows]:
    """Return the comparisons of a page."""
    return starmap(_decode, from_json(text))


def _decode(comparison: list[Any], answers: list[list[Any]], metadata: Mapping[str, str]) -> ComparisonRows:
    for place in DIGESTS:
        comparison[place] = _to_bytes(comparison[place])
    for answer in answers:
        answer[ANSWER_DIGEST] = _to_bytes(answer[ANSWER_DIGEST])
    return ComparisonRows(ComparisonRow._make(comparison), list(map(AnswerRow._make, answers)), metadata, {})


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
