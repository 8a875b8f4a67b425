"""Comparisons that end under load are written in pages, read there as elsewhere, and get rows of their own at rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.sampling import Sampling
from fanout.core.schema import Answer, Choice, Completion, Failure, Outcome, Query, Timing
from fanout.core.usage import Cost
from fanout.store.history import writing
from fanout.store.history.pages import decode_comparison, decode_page, encode_pages
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.records import StoredComparison
from fanout.store.history.writing import BUSY, HistoryTables
from fanout.store.opening import Store, open_store
from tests.store.test_history import DAY_S, FILTERS, SECRET, list_ids, record, replace_text, wait_until
from tests.support.builders.outcomes import KNOWN, make_answer, make_failure
from tests.support.databases import query

LONG = "something long " * 100


@pytest.fixture
async def store(location: str) -> AsyncIterator[Store]:
    """Open a store that writes nothing by itself."""
    async with open_store(location, history="full", is_reading=True) as opened:
        assert opened
        yield opened


def make_outcomes(number: int) -> list[Outcome]:
    words = LONG if number == 3 else f"answer {number}\\0 ü"
    first = replace_text(make_answer(f"m{number % 3}"), words)
    return [first, replace_text(make_failure("server", "m2"), index=1)] if number % 2 else [first]


async def put_in_page(store: Store, count: int = 12, created: float | None = None) -> list[str]:
    """Return the ids of comparisons that stand in a page, of which their store does not know."""
    ids = []
    created = time.time() if created is None else created
    for number in range(count):
        more = {"account_id": ("a", "b", None)[number % 3], "metadata": {"experiment": str(number % 4), "arm": "b"}}
        ids.append(record(store, *make_outcomes(number), created=created + number / 1e3, **more))
    history = store.history
    await history._prepare_all()
    rows = {number: one.rows for number, one in history._pending.items() if one.rows}
    assert len(rows) == count
    history._pending.clear()
    await HistoryTables(store.database).write(rows, is_busy=True)
    return ids


async def read_all(store: Store, ids: list[str]) -> list[StoredComparison | None]:
    return [await store.history.find(id_) for id_ in ids]


def count_rows(location: str) -> list[int]:
    return [int(query(location, f"SELECT count(*) FROM {name}")[0][0]) for name in ("comparison_pages", "comparisons")]


async def test_comparisons_read_the_same_in_a_page_as_in_rows_of_their_own(store: Store, location: str) -> None:
    ids = await put_in_page(store)
    filters = {name: ComparisonFilter(**given) for name, given in FILTERS.items()}
    filters |= {"texts": ComparisonFilter(texts=[LONG[:30].upper()]), "request": ComparisonFilter(texts=[SECRET], limit=5)}

    async def read() -> list[object]:
        lists = [await store.history.list_comparisons(filter_) for filter_ in filters.values()]
        numbers = [await store.history.find_number(id_, account) for id_ in ids for account in (None, "a", "")]
        return [*lists, numbers, await read_all(store, ids)]

    in_page, counts = await read(), count_rows(location)
    await store.history.spread_pages(2**62)

    assert counts == [1, 0]
    assert count_rows(location) == [0, len(ids)]
    assert in_page == await read()
    assert await list_ids(store, texts=["something long something"]) == [ids[3]]
    assert await list_ids(store, limit=2) == [ids[-1], ids[-2]]


async def test_a_list_joins_rows_and_pages_by_their_times(store: Store) -> None:
    now = time.time()
    oldest, newest = record(store, created=now - 60), record(store, created=now + 60)
    await store.history._write_pending()
    ids = await put_in_page(store, 3, created=now)

    assert await list_ids(store) == [newest, *reversed(ids), oldest]
    assert await list_ids(store, limit=2) == [newest, ids[-1]]


async def test_what_ends_under_load_is_one_row_and_gets_rows_of_its_own_at_rest(
    store: Store, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [record(store) for _ in range(BUSY)]
    await store.history._write_pending()
    busy = count_rows(location)
    few = [record(store) for _ in range(BUSY - 1)]
    await store.history._write_pending()
    in_pause = count_rows(location)
    monkeypatch.setattr(writing, "CALM_S", 0.0)
    await store.history._write_pending()

    assert busy == [1, 0]
    assert in_pause == [1, BUSY - 1]
    assert count_rows(location) == [0, 2 * BUSY - 1]
    assert sorted(await list_ids(store)) == sorted(ids + few)


async def test_pages_that_a_process_has_left_behind_get_rows_of_their_own(location: str) -> None:
    async with open_store(location) as store:
        assert store
        ids = await put_in_page(store)
    assert count_rows(location) == [1, 0]
    async with open_store(location) as store:
        assert store
        assert sorted(await list_ids(store)) == sorted(ids)
        record(store)
        await wait_until(lambda: count_rows(location) == [0, len(ids) + 1])


async def test_two_processes_spread_a_page_once(store: Store, location: str) -> None:
    await put_in_page(store)
    async with open_store(location) as other:
        assert other
        await asyncio.gather(store.history.spread_pages(2**62), other.history.spread_pages(2**62))

    assert count_rows(location) == [0, 12]


async def test_retention_deletes_comparisons_in_pages(store: Store, location: str) -> None:
    await put_in_page(store, created=time.time() - 31 * DAY_S)
    kept = await put_in_page(store)
    await store.retention.delete_old()

    assert sorted(await list_ids(store)) == sorted(kept)
    assert count_rows(location) == [1, 0]


async def test_a_page_holds_its_comparisons_to_the_last_bit(store: Store) -> None:
    await store.history._write_pending()
    for number in range(40):
        record(store, *make_outcomes(number))
    await store.history._prepare_all()
    waiting = {number: one.rows for number, one in store.history._pending.items() if one.rows}
    ((first, last, page),) = encode_pages(waiting)

    assert len(waiting) == 40
    assert list(decode_page(page)) == [decode_comparison(kept)._replace(texts={}) for kept in waiting.values()]
    assert (first, last) == (min(waiting), max(waiting))


def make_mixed_outcomes(name: str) -> list[Outcome]:
    """Return outcomes of all shapes: an answer, two of three that were requested, a failure, a priced failure, a member."""
    few = replace_text(make_answer(name, usage=replace(KNOWN, reasoning_tokens=3, cache_write_tokens=1), usd=None), index=1)
    few = replace(few, call=replace(few.call, query=Query(prompt="hi", sampling=Sampling(n=3)), prompt_index=2))
    two = Completion((Choice(Answer("a"), "stop"), Choice(Answer("b"), "length")), few.result.usage, name)  # type: ignore[union-attr]
    failed = replace_text(make_failure("server", name), index=4)
    failed = replace(failed, result=Failure("server", "it failed", code=name, status=502), cost=Cost(0.5, "reported"))
    member = replace_text(make_answer("m2", usage=None), index=5)
    member = replace(member, call=replace(member.call, is_member=True), timing=Timing(0.004, 0.0125, 0.25, 1.5, 2))
    return [replace_text(make_answer("m1")), replace(few, result=two), failed, member]


@pytest.mark.parametrize("name", ["m3", "nul\0 half \ud83d", "long " * 200])
async def test_a_comparison_without_texts_is_written_as_short_facts_that_make_the_rows_of_one_with_texts(
    bare_location: str, name: str
) -> None:
    async with open_store(bare_location, history="usage", is_reading=True) as usage:
        assert usage
        given: dict[str, Any] = {"account_id": name, "metadata": {"arm": name}, "created": 1e9, "total_s": 2.0}
        id_ = record(usage, *make_mixed_outcomes(name), **given)
        (pending,) = usage.history._pending.values()
        rows = pending.decode()
        assert rows
        unwritten = await usage.history.find(id_)
        assert isinstance(pending.rows, bytes)
        await HistoryTables(usage.database).write({pending.number: pending.rows}, is_busy=True)
        usage.history._pending.clear()
        in_page = await usage.history.find(id_)
        await usage.history.spread_pages(2**62)
        written = await usage.history.find(id_)
    async with open_store(bare_location, history="full", is_reading=True) as full:
        assert full
        record(full, *make_mixed_outcomes(name), id=id_, number=rows.comparison.number, **given)
        (pending,) = full.history._pending.values()
        full.history._make_rows()
        with_texts = pending.decode()

    assert with_texts
    assert unwritten == in_page == written
    assert rows.metadata == with_texts.metadata
    assert rows.comparison == with_texts.comparison._replace(request=None, request_digest=None)
    assert rows.answers == [answer._replace(content=None, content_digest=None) for answer in with_texts.answers]
    assert [answer.finish_reason for answer in rows.answers] == ["stop", "stop", "length", "error", "error", "stop"]
    assert [answer.place for answer in rows.answers] == list(range(6))
    comparison = rows.comparison
    assert (comparison.answered, comparison.failed, comparison.input_tokens, comparison.unknown_usage) == (3, 1, 20, 1)
    assert (comparison.cost_usd, comparison.cost_unknown, comparison.reasoning_tokens) == (0.5, 1, 3)
    assert (comparison.total_ms, comparison.overhead_ms) == (2000, 500)


@pytest.mark.parametrize("name", ["nul\0", "\u554f" * 200], ids=["cleaned", "cut"])
async def test_names_are_found_in_pages_as_they_are_shown(bare_location: str, name: str) -> None:
    async with open_store(bare_location, history="usage", is_reading=True) as store:
        assert store
        id_ = record(store, replace_text(make_answer(name)), metadata={"k": "a\0b"})
        await HistoryTables(store.database).write({1: store.history._pending.popitem()[1].rows or b""}, is_busy=True)
        shown = (await read_all(store, [id_]))[0]
        assert shown
        assert await list_ids(store, model=shown.answers[0].model) == [id_]
        assert await list_ids(store, metadata={"k": "a\0b"}) == [id_]


async def test_a_comparison_that_cannot_be_read_is_left_out_of_what_is_written(
    bare_location: str, log_lines: list[str]
) -> None:
    async with open_store(bare_location, history="usage") as store:
        assert store
        ids = [record(store), record(store)]
        store.history._pending[next(iter(store.history._pending))].rows = b'[1, "too short"]'
        await store.history.write()
        assert await list_ids(store) == ids[1:]

    assert len([line for line in log_lines if "comparison.dropped" in line]) == 1
