"""Comparisons are recorded as they end, written soon, readable at once, and deleted when they are old."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite as dialect

from fanout.core.schema import Answer, Choice, Completion, Failure, Outcome
from fanout.store.engine.database import MAX_READERS
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.recorder import MAX_BYTES_IN_MEMORY, MAX_COMPARISONS_PER_WRITE, MAX_IN_MEMORY, MAX_WAITING
from fanout.store.history.records import ComparisonRecord, StoredComparison
from fanout.store.opening import MEMORY, Store, open_store
from fanout.store.votes import Subject, VotedAnswer, Voter, Votes
from tests.support.builders.outcomes import KNOWN, make_answer, make_failure
from tests.support.databases import SYSTEMS, OutsideConnection, query
from tests.support.timing import timed

DAY_S = 86_400
SECRET = "a word that occurs nowhere else"


def replace_text(outcome: Outcome, words: str = SECRET, index: int = 0) -> Outcome:
    """Return an outcome at that index, with that text."""
    call = replace(outcome.call, index=index, entry=index)
    if isinstance(outcome.result, Failure):
        return replace(outcome, call=call, result=replace(outcome.result, message=words))
    return replace(outcome, call=call, result=replace(outcome.result, choices=(Choice(Answer(words), "stop"),)))


def record(store: Store, *outcomes: Outcome, created: float | None = None, **more: Any) -> str:
    """Record a comparison, and return its id."""
    created = time.time() if created is None else created
    fields: dict[str, Any] = {
        "number": store.history.create_number(created),
        "id": str(uuid.uuid4()),
        "created": created,
        "account_id": None,
        "request_id": "r-1",
        "path": "/v1/completion",
        "stream": False,
        "status": 200,
        "total_s": 0.25,
        "metadata": {},
        "body": json.dumps({"prompt": SECRET}).encode(),
        "outcomes": outcomes or (replace_text(make_answer()),),
    }
    store.history.record(ComparisonRecord(**{**fields, **more}))
    return str({**fields, **more}["id"])


def count_comparisons(location: str) -> int:
    in_pages = query(location, "SELECT rows FROM comparison_pages")
    written = int(query(location, "SELECT count(*) FROM comparisons")[0][0])
    return written + sum(len(json.loads(rows)) for (rows,) in in_pages)


async def wait_until(is_reached: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_reached():
            await asyncio.sleep(0.02)


async def list_ids(store: Store, **question: Any) -> list[str]:
    return [
        found.comparison.id for found in await store.history.list_comparisons(ComparisonFilter(**{"limit": 1000, **question}))
    ]


async def find_comparison(store: Store, id_: str) -> StoredComparison:
    found = await store.history.find(id_)
    assert found
    return found


@pytest.fixture
async def store(location: str) -> AsyncIterator[Store]:
    async with open_store(location) as opened:
        assert opened
        yield opened


async def test_a_comparison_reads_the_same_before_and_after_it_is_written(store: Store, location: str) -> None:
    outcomes = (
        replace_text(make_answer()),
        replace_text(make_failure("timeout", "slow"), index=1),
        replace_text(make_answer("free", usage=None, usd=None), index=2),
    )
    id_ = record(store, *outcomes, account_id="team-a", metadata={"experiment": "7"})

    at_once = (await store.history.list_comparisons(ComparisonFilter()), await find_comparison(store, id_))
    await wait_until(lambda: count_comparisons(location) == 1)
    later = (await store.history.list_comparisons(ComparisonFilter()), await find_comparison(store, id_))

    assert at_once == later
    row = later[1].comparison
    assert (row.answered, row.failed, row.input_tokens, row.output_tokens, row.unknown_usage) == (2, 1, 10, 4, 1)
    assert (row.cost_usd, row.cost_unknown, row.total_ms, row.account_id) == (0.25, 1, 250, "team-a")
    assert [(answer.model, answer.kind, answer.finish_reason) for answer in later[1].answers] == [
        ("gpt-6-sol", None, "stop"),
        ("slow", "timeout", "timeout"),
        ("free", None, "stop"),
    ]
    assert later[0][0].metadata == {"experiment": "7"}
    assert [entry[1] for entry in later[0][0].entries] == ["gpt-6-sol", "slow", "free"]


async def test_usage_of_a_call_with_several_answers_stands_on_the_first(store: Store) -> None:
    call = replace_text(make_answer()).call
    call = replace(call, query=replace(call.query, sampling=replace(call.query.sampling, n=3)))
    two = Completion((Choice(Answer("a"), "stop"), Choice(Answer("b"), "length")), KNOWN)

    found = await find_comparison(store, record(store, replace(make_answer(), call=call, result=two)))

    assert [(answer.place, answer.sample, answer.output_tokens, answer.finish_reason) for answer in found.answers] == [
        (0, 0, 4, "stop"),
        (1, 1, None, "length"),
        (2, 2, None, "error"),
    ]
    assert (found.answers[2].kind, found.answers[2].code) == ("malformed", "missing_choice")


async def test_every_comparison_is_listed_exactly_once_while_it_is_being_written(store: Store) -> None:
    """Pages run into writes on purpose: each must hold exactly what had ended when it was made."""
    made: list[str] = []

    async def record_steadily() -> None:
        while True:
            made.append(record(store))
            await asyncio.sleep(0.001)

    going = asyncio.create_task(record_steadily())
    try:
        for _ in range(80):
            before = len(made)
            found = await list_ids(store, limit=100_000)
            assert sorted(found) == sorted(set(found))
            assert set(made[:before]) <= set(found) <= set(made)
            await asyncio.sleep(0.01)
    finally:
        going.cancel()

    assert found == made[len(found) - 1 :: -1]


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "account": {"account_id": "a"},
    "nobody's": {"account_id": ""},
    "model": {"model": "m1"},
    "label": {"label": "cold"},
    "both of one answer": {"model": "m1", "label": "cold"},
    "metadata": {"metadata": {"experiment": "1"}},
    "two words": {"metadata": {"experiment": "1", "arm": "b"}},
    "metadata and model": {"metadata": {"experiment": "1"}, "model": "m2", "account_id": "a"},
    "status": {"status": 502},
    "failed": {"failed": True},
    "not failed": {"failed": False, "model": "m2"},
    "few": {"model": "m1", "limit": 3},
    "none": {"metadata": {"experiment": "77"}},
}


@pytest.mark.parametrize("name", FILTERS)
async def test_filters_match_the_same_comparisons_in_memory_and_in_the_database(name: str, store: Store, location: str) -> None:
    dice, filter_, made = random.Random(7), FILTERS[name], []
    for _ in range(60):
        outcomes = []
        for place in range(dice.randint(1, 3)):
            model = dice.choice(("m1", "m2", "m3"))
            outcome = replace_text(make_failure("server", model) if dice.random() < 0.2 else make_answer(model), index=place)
            call = replace(outcome.call, target=replace(outcome.call.target, label=dice.choice(("cold", "warm"))))
            outcomes.append(replace(outcome, call=call))
        more: dict[str, Any] = {
            "account_id": dice.choice(("a", "b", None)),
            "metadata": {"experiment": str(dice.randint(0, 3)), "arm": dice.choice("ab")},
            "status": 200 if any(isinstance(outcome.result, Completion) for outcome in outcomes) else 502,
        }
        made.append((record(store, *outcomes, **more), outcomes, more))

    def is_expected(outcomes: list[Outcome], more: dict[str, Any]) -> bool:
        targets = [outcome.call.target for outcome in outcomes]
        return (
            any(filter_.get("model") in (None, it.name) and filter_.get("label") in (None, it.label) for it in targets)
            and filter_.get("account_id") in (None, more["account_id"] or "")
            and filter_.get("metadata", {}).items() <= more["metadata"].items()
            and filter_.get("status") in (None, more["status"])
            and filter_.get("failed") in (None, any(isinstance(outcome.result, Failure) for outcome in outcomes))
        )

    expected = [id_ for id_, outcomes, more in reversed(made) if is_expected(outcomes, more)][: filter_.get("limit")]
    unwritten = await list_ids(store, **filter_)
    await wait_until(lambda: count_comparisons(location) == 60)

    assert unwritten == expected
    assert await list_ids(store, **filter_) == expected


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", [name for name in FILTERS if name not in ("all", "status", "not failed")])
async def test_no_filter_scans_a_whole_table(name: str, store: Store) -> None:
    selection = ComparisonFilter(**{"until": 2**62, "limit": 20, **FILTERS[name]}).select()
    statement = str(selection.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
    async with store.database.read_transaction() as connection:
        plan = [row.detail for row in await connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]

    assert not [line for line in plan if line.startswith("SCAN")], plan
    assert not [line for line in plan if "TEMP B-TREE" in line and "ORDER BY" in line], plan


async def test_the_newest_comparisons_come_first_and_times_limit_the_list(store: Store) -> None:
    made = [record(store, created=number * 10.0) for number in (3, 1, 2)]
    numbers = {number: store.history.create_number(number * 10.0) & ~1023 for number in (1, 2, 3)}

    assert await list_ids(store) == [made[0], made[2], made[1]]
    assert await list_ids(store, since=numbers[2]) == [made[0], made[2]]
    assert await list_ids(store, until=numbers[2]) == [made[1]]


@timed
async def test_a_comparison_is_written_within_a_second(store: Store, location: str) -> None:
    for wanted in (1, 2, 3):
        record(store)
        await wait_until(lambda wanted=wanted: count_comparisons(location) == wanted, within_s=1.0)  # type: ignore[misc]


async def test_waiting_comparisons_are_written_when_the_store_closes(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for _ in range(300):
            record(store, metadata={"a": "b"})

    assert count_comparisons(location) == 300


async def test_two_stores_on_one_database_keep_the_comparisons_of_both(location: str) -> None:
    async with open_store(location) as one, open_store(location) as other:
        assert one
        assert other
        made = [record(which) for _ in range(30) for which in (one, other)]
        await wait_until(lambda: count_comparisons(location) == 60)

        assert sorted(await list_ids(one)) == sorted(made)


@timed
async def test_slow_readers_do_not_delay_writing(store: Store, location: str) -> None:
    reading = [store.database.read_transaction() for _ in range(MAX_READERS)]
    for one in reading:
        await (await one.__aenter__()).execute(text("SELECT * FROM comparisons"))
    record(store)
    await wait_until(lambda: count_comparisons(location) == 1, within_s=1.5)
    for one in reading:
        await one.__aexit__(None, None, None)


@pytest.mark.parametrize("location", [MEMORY, *SYSTEMS], indirect=True)
async def test_a_cancelled_listing_leaves_the_store_usable(location: str) -> None:
    async with open_store(location) as store:
        assert store
        made = [record(store) for _ in range(200)]
        await asyncio.sleep(1)
        for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004) * 4:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await list_ids(store)

        assert await list_ids(store) == made[::-1]


@timed
async def test_a_locked_database_delays_no_caller_and_loses_nothing(store: Store, location: str, log_lines: list[str]) -> None:
    holder = OutsideConnection(location)
    holder.hold()
    record(store)
    await wait_until(lambda: any("history.write_failed" in line for line in log_lines), within_s=6)
    for _ in range(20):
        record(store)
    meanwhile = await list_ids(store)
    holder.release()
    holder.close()
    await wait_until(lambda: count_comparisons(location) == 21)
    await wait_until(lambda: any("history.write_recovered" in line for line in log_lines))

    assert len(meanwhile) == 21
    assert len([line for line in log_lines if "history.write_failed" in line]) == 1


async def test_closing_writes_all_that_waits_if_a_lock_ends_in_time(location: str) -> None:
    """More than fits into one transaction."""
    holder = OutsideConnection(location)
    async with open_store(location) as store:
        assert store
        holder.hold()
        for _ in range(2 * MAX_COMPARISONS_PER_WRITE + 1):
            record(store)
        asyncio.get_running_loop().call_later(2.5, holder.release)
    holder.close()

    assert count_comparisons(location) == 2 * MAX_COMPARISONS_PER_WRITE + 1


async def test_comparisons_beyond_the_limit_are_dropped_and_logged_once(location: str, log_lines: list[str]) -> None:
    async with open_store(location) as store:
        assert store
        holder = OutsideConnection(location)
        holder.hold()
        for _ in range(MAX_WAITING + 50):
            record(store)
        holder.release()
        holder.close()
        await wait_until(lambda: any("overflow_ended" in line for line in log_lines), within_s=20)

    events = [json.loads(line) for line in log_lines]
    assert [line["event"] for line in events if line["level"] == "error"] == ["history.overflowed"]
    assert [line["lost"] for line in events if line["event"] == "history.overflow_ended"] == [50]
    assert count_comparisons(location) == MAX_WAITING


async def test_waiting_comparisons_are_limited_in_bytes(location: str) -> None:
    async with open_store(location) as store:
        assert store
        body = b"x" * 2**20
        for _ in range(100):
            record(store, body=body)
        assert len(await list_ids(store)) == 63

    assert count_comparisons(location) == 63


async def test_texts_are_kept_only_in_full_mode(tmp_path: Path) -> None:
    found: dict[str, bytes] = {}
    for mode in ("usage", "full"):
        path = tmp_path / f"{mode}.db"
        async with open_store(str(path), history=mode) as store:
            assert store
            unwritten = await find_comparison(
                store, record(store, replace_text(make_answer()), replace_text(make_failure("server"), index=1))
            )
            assert [answer.content is not None for answer in unwritten.answers] == [mode == "full"] * 2
        found[mode] = path.read_bytes()

    assert SECRET.encode() not in found["usage"]
    assert found["full"].count(SECRET.encode()) >= 3


async def test_a_long_text_is_stored_once_however_often_it_occurs(location: str) -> None:
    long = SECRET * 100
    async with open_store(location, history="full") as store:
        assert store
        for place in range(4):
            id_ = record(
                store,
                replace_text(make_answer(), long),
                replace_text(make_answer(), long, index=1),
                body=b'{"a": "%s"}' % long.encode(),
            )
            unwritten = await find_comparison(store, id_)
            await wait_until(lambda place=place: count_comparisons(location) == place + 1)  # type: ignore[misc]
            found = await find_comparison(store, id_)

    assert found == unwritten
    assert json.loads(found.answers[1].content or "")["text"] == long
    assert json.loads(found.comparison.request or "")["a"] == long
    assert query(location, "SELECT count(*) FROM history_texts") == [(2,)]


async def test_characters_that_no_database_takes_are_replaced(location: str) -> None:
    odd = "nul\0 half \ud83d"
    async with open_store(location, history="full") as store:
        assert store
        answer = Answer(odd, reasoning=odd, tool_calls=({"id": odd, "n": float("nan"), "o": [odd]},))
        outcome = replace(replace_text(make_answer(odd)), result=Completion((Choice(answer, "stop"),), KNOWN, model=odd))
        id_ = record(store, outcome, account_id=odd, metadata={odd: odd}, body=odd.encode("utf-8", "surrogatepass"))
        await wait_until(lambda: count_comparisons(location) == 1)
        found = await find_comparison(store, id_)

    (kept,) = found.answers
    assert found.metadata == {"nul\ufffd half ?": "nul\ufffd half ?"}
    assert (kept.model, found.comparison.account_id) == ("nul\ufffd half ?", "nul\ufffd half ?")
    assert json.loads(kept.content or "")["tool_calls"][0]["n"] is None


async def test_old_comparisons_are_deleted_with_their_texts_and_the_rest_stays(location: str) -> None:
    long, now = SECRET * 100, time.time()
    async with open_store(location, history="full", history_days=2) as store:
        assert store
        for _ in range(130):
            record(store, replace_text(make_answer(), f"{long} of old"), created=now - 3 * DAY_S, metadata={"a": "b"})
        shared = record(store, replace_text(make_answer(), long), created=now - 3 * DAY_S)
        young = [
            record(store, replace_text(make_answer(), long), created=now - age_s, metadata={"a": "b"}) for age_s in (3600, 1)
        ]
        await wait_until(lambda: count_comparisons(location) == 133)
        await store.retention.delete_old()
        left = await list_ids(store)

        assert left == young[::-1]
        assert await store.history.find(shared) is None
    counts = {
        table: query(location, f"SELECT count(*) FROM {table}") for table in ("answers", "comparison_metadata", "history_texts")
    }
    assert counts == {"answers": [(2,)], "comparison_metadata": [(2,)], "history_texts": [(1,)]}


async def test_nothing_is_deleted_if_history_is_kept_for_ever(location: str) -> None:
    async with open_store(location, history_days=0) as store:
        assert store
        record(store, created=1.0)
        await wait_until(lambda: count_comparisons(location) == 1)
        await store.retention.delete_old()

        assert len(await list_ids(store)) == 1


async def test_old_comparisons_are_deleted_in_the_background(location: str) -> None:
    async with open_store(location) as store:
        assert store
        record(store, created=1.0)
    async with open_store(location):
        await wait_until(lambda: count_comparisons(location) == 0, within_s=10)


@pytest.mark.parametrize(("chars", "kept"), [(100, MAX_IN_MEMORY), (MAX_BYTES_IN_MEMORY // 10, 9)])
async def test_a_store_in_memory_keeps_only_the_newest_comparisons(chars: int, kept: int) -> None:
    async with open_store(MEMORY, history="full") as store:
        assert store
        made = [record(store, replace_text(make_answer(), str(number).zfill(chars))) for number in range(kept + 300)]
        left = await list_ids(store, limit=10_000)
        found = await find_comparison(store, left[-1])
        gone = await store.history.find(made[0])

    assert left == made[: -kept - 1 : -1]
    assert str(len(made) - kept).zfill(chars) in (found.answers[0].content or "")
    assert gone is None


async def test_votes_on_a_comparison_leave_memory_with_it() -> None:
    async with open_store(MEMORY) as store:
        assert store
        ballots = Votes(store.database)
        first, last = (record(store, make_answer()) for _ in range(2))
        for id_ in (first, last):
            subject, answers = Subject(comparison_id=id_), [VotedAnswer(0, 0, "m"), VotedAnswer(1, 0, "n")]
            await ballots.draw(f"ballot-{id_}", subject, Voter("", ""), "pair", 0, answers, 10)
        for _ in range(MAX_IN_MEMORY - 1):
            record(store, make_answer())
        await store.retention.delete_old()

        assert await ballots.find(f"ballot-{first}") is None
        assert await ballots.find(f"ballot-{last}")


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_a_text_that_is_used_again_while_it_is_being_deleted_stays(location: str) -> None:
    """Another process renews it in a transaction that ends only after the deleting has found it old."""
    async with open_store(location, history="full", history_days=2) as store:
        assert store
        record(store, replace_text(make_answer(), SECRET * 100), created=time.time() - 3 * DAY_S)
        await wait_until(lambda: count_comparisons(location) == 1)
        with OutsideConnection(location) as other:
            other.execute("BEGIN")
            other.execute(f"UPDATE history_texts SET day = {int(time.time()) // DAY_S}")
            deleting = asyncio.create_task(store.retention.delete_old())
            await wait_until(lambda: bool(query(location, "SELECT 1 FROM pg_locks WHERE NOT granted")))
            other.release()
        await deleting

    assert count_comparisons(location) == 0
    assert query(location, "SELECT count(*) FROM history_texts") == [(1,)]


def test_a_record_counts_all_that_it_holds_and_holds_no_vectors() -> None:
    image = {"image_url": {"url": "x" * 2**20}}
    answer = Answer("It", reasoning="y" * 2**20, extra={"images": [image]})
    outcome = replace(make_answer(), result=Completion((Choice(answer, "stop"),), None, vectors=(b"\0" * 2**20,)))
    comparison = ComparisonRecord(1, "id", 0.0, None, "r", "/v1/completion", False, 200, 0.1, {}, b"{}", [outcome])
    comparison = comparison.without_numbers()

    assert 2 * 2**20 < comparison.size_bytes < 2 * 2**20 + 4096
    (kept,) = comparison.outcomes
    assert isinstance(kept.result, Completion)
    assert (kept.result.vectors, kept.result.choices) == ((), outcome.result.choices)  # type: ignore[union-attr]
