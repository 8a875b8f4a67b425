"""Pages: comparisons that ended under load, many in one row of the database, until there is time for rows of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Column, Connection, Table, delete, select

from fanout.core.json_text import dump
from fanout.observability.logs import log
from fanout.store.engine.text_columns import StorableText, clean_text, clean_texts
from fanout.store.history.facts import ComparisonFacts, list_facts
from fanout.store.history.records import AnswerRow, ComparisonRecord, ComparisonRow, ComparisonRows
from fanout.store.history.rows import make_rows
from fanout.store.tables import metadata

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

PAGE_SIZE = 128
"""The most comparisons of a page."""
DECODED_AT_ONCE = 16
"""Comparisons whose rows are made in one step of the event loop, in a third of a millisecond where each has four answers."""
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


KeptComparison = ComparisonRows | bytes
"""A comparison that waits to be written: its rows or, without texts, its facts as JSON.

Those are encoded as soon as it has ended. Kept as objects until the next write, those of half a second are megabytes of small
ones, which have left the processor's caches by then.
"""


def encode_facts(record: ComparisonRecord) -> bytes:
    """Encode a comparison without its texts."""
    facts = list_facts(record)
    try:
        return orjson.dumps(facts)
    except orjson.JSONEncodeError:  # half a character in a name
        return dump(clean_texts(facts))


def decode_comparison(kept: KeptComparison) -> ComparisonRows:
    """Return the rows of a comparison."""
    return _decode(_parse(kept)) if isinstance(kept, bytes) else kept


def encode_pages(some: Mapping[int, KeptComparison]) -> list[PageRow]:
    """Return comparisons by their numbers as the rows of pages.

    Their long texts stand in `history_texts`, as those of written ones do.
    """
    numbers, kept = list(some), list(some.values())
    places = [slice(start, start + PAGE_SIZE) for start in range(0, len(some), PAGE_SIZE)]
    return [(min(numbers[page]), max(numbers[page]), _encode_page(kept[page])) for page in places]


def _encode_page(some: Sequence[KeptComparison]) -> str:
    encoded = [kept if isinstance(kept, bytes) else _encode_rows(kept) for kept in some]
    return f"[{b','.join(encoded).decode()}]"


def _encode_rows(rows: ComparisonRows) -> bytes:
    # As lists: of a named tuple pydantic first asks what it is, which took three times as long (2026-11-28).
    return to_json(([*rows.comparison], [[*answer] for answer in rows.answers], rows.metadata), bytes_mode="hex")


def decode_page(text: str) -> Iterator[ComparisonRows]:
    """Yield the comparisons of a page."""
    return _decode_all(_parse(text))


def decode_comparisons(some: Iterable[KeptComparison]) -> Iterator[ComparisonRows]:
    """Yield the rows of comparisons that wait to be written."""
    for kept in some:
        if isinstance(kept, bytes):
            yield from _decode_all([_parse(kept)])
        else:
            yield kept


def _decode_all(some: Iterable[list[Any]]) -> Iterator[ComparisonRows]:
    for one in some:
        try:
            rows = _decode(one)
        except Exception:  # it is left out: all others would wait for it for ever
            log.exception("comparison.dropped")
        else:
            yield rows


def _parse(text: str | bytes) -> Any:
    # Without the parser's cache of strings: ids that are never met again would fill its 16,384 places for good.
    return from_json(text, cache_strings="none")


def _decode(one: list[Any]) -> ComparisonRows:
    """Return the rows of a comparison that was kept as facts or, with texts, as rows."""
    if not isinstance(one[0], list):
        return make_rows(ComparisonFacts._make(one))
    comparison, answers, metadata = one
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
        page: list[ComparisonRows] = []
        for rows in decode_page(text):
            page.append(rows)
            if len(page) % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        yield page
