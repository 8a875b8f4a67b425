"""Comparisons are kept as they end, written soon, found whether written or not, and deleted when they are old."""

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
from fanout.core.usage import Usage
from fanout.store import MEMORY, Store, open_store
from fanout.store.engine.database import MAX_READERS
from fanout.store.history.filters import ComparisonFilter
from fanout.store.history.recorder import MAX_WAITING
from fanout.store.history.records import ComparisonRecord, StoredComparison
from fanout.store.retention import MAX_COMPARISONS_IN_MEMORY
from tests.support.databases import BOTH, Beside, rows
from tests.support.ended import KNOWN, answered, failed

DAY_S = 86_400
SECRET = "a word that nobody else says"


def said(outcome: Outcome, words: str = SECRET, index: int = 0) -> Outcome:
    """An outcome in its place, with a text."""
    call = replace(outcome.call, index=index, entry=index)
    if isinstance(outcome.result, Failure):
        return replace(outcome, call=call, result=replace(outcome.result, message=words))
    return replace(outcome, call=call, result=replace(outcome.result, choices=(Choice(Answer(words), "stop"),)))


def ended(store: Store, *outcomes: Outcome, created: float | None = None, **more: Any) -> str:
    """Records a comparison; its id."""
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
        "outcomes": outcomes or (said(answered()),),
    }
    store.history.record(ComparisonRecord(**{**fields, **more}))
    return str({**fields, **more}["id"])


def written(location: str) -> int:
    return int(rows(location, "SELECT count(*) FROM comparisons")[0][0])


async def soon(reached: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not reached():
            await asyncio.sleep(0.02)


async def ids(store: Store, **question: Any) -> list[str]:
    return [
        found.comparison.id for found in await store.history.list_comparisons(ComparisonFilter(**{"limit": 1000, **question}))
    ]


async def whole(store: Store, id_: str) -> StoredComparison:
    found = await store.history.find(id_)
    assert found
    return found


@pytest.fixture
async def store(location: str) -> AsyncIterator[Store]:
    async with open_store(location) as opened:
        assert opened
        yield opened


async def test_a_comparison_is_found_at_once_and_the_same_when_it_is_written(store: Store, location: str) -> None:
    outcomes = (
        said(answered()),
        said(failed("timeout", "slow"), index=1),
        said(answered("free", usage=None, usd=None), index=2),
    )
    id_ = ended(store, *outcomes, account_id="team-a", metadata={"experiment": "7"})

    at_once = (await store.history.list_comparisons(ComparisonFilter()), await whole(store, id_))
    await soon(lambda: written(location) == 1)
    later = (await store.history.list_comparisons(ComparisonFilter()), await whole(store, id_))

    assert at_once == later
    row = later[1].comparison
    assert (row.answered, row.failed, row.input_tokens, row.output_tokens, row.unknown_usage) == (2, 1, 10, 4, 1)
    assert (row.cost_usd, row.cost_unknown, row.total_ms, row.account_id) == (0.25, 1, 250, "team-a")
    assert [(answer.model, answer.kind, answer.finish_reason) for answer in later[1].answers] == [
        ("gpt-4", None, "stop"),
        ("slow", "timeout", "timeout"),
        ("free", None, "stop"),
    ]
    assert later[0][0].metadata == {"experiment": "7"}
    assert [entry[1] for entry in later[0][0].entries] == ["gpt-4", "slow", "free"]


async def test_where_one_call_gave_several_answers_what_it_took_stands_on_the_first(store: Store) -> None:
    call = said(answered()).call
    call = replace(call, query=replace(call.query, sampling=replace(call.query.sampling, n=3)))
    two = Completion((Choice(Answer("a"), "stop"), Choice(Answer("b"), "length")), KNOWN)

    found = await whole(store, ended(store, replace(answered(), call=call, result=two)))

    assert [(answer.place, answer.sample, answer.output_tokens, answer.finish_reason) for answer in found.answers] == [
        (0, 0, 4, "stop"),
        (1, 1, None, "length"),
        (2, 2, None, "error"),
    ]
    assert (found.answers[2].kind, found.answers[2].code) == ("malformed", "missing_choice")


async def test_every_comparison_is_on_every_page_once_while_it_is_written(store: Store) -> None:
    """Pages run into writes on purpose: each must hold exactly what had ended when it was made."""
    made: list[str] = []

    async def go_on() -> None:
        while True:
            made.append(ended(store))
            await asyncio.sleep(0.001)

    going = asyncio.create_task(go_on())
    try:
        for _ in range(80):
            before = len(made)
            found = await ids(store, limit=100_000)
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
async def test_filters_find_the_same_whether_written_or_not(name: str, store: Store, location: str) -> None:
    dice, asked, made = random.Random(7), FILTERS[name], []
    for _ in range(60):
        outcomes = []
        for place in range(dice.randint(1, 3)):
            model = dice.choice(("m1", "m2", "m3"))
            outcome = said(failed("server", model) if dice.random() < 0.2 else answered(model), index=place)
            call = replace(outcome.call, target=replace(outcome.call.target, label=dice.choice(("cold", "warm"))))
            outcomes.append(replace(outcome, call=call))
        more: dict[str, Any] = {
            "account_id": dice.choice(("a", "b", None)),
            "metadata": {"experiment": str(dice.randint(0, 3)), "arm": dice.choice("ab")},
            "status": 200 if any(isinstance(outcome.result, Completion) for outcome in outcomes) else 502,
        }
        made.append((ended(store, *outcomes, **more), outcomes, more))

    def is_asked_for(outcomes: list[Outcome], more: dict[str, Any]) -> bool:
        targets = [outcome.call.target for outcome in outcomes]
        return (
            any(asked.get("model") in (None, it.name) and asked.get("label") in (None, it.label) for it in targets)
            and asked.get("account_id") in (None, more["account_id"] or "")
            and asked.get("metadata", {}).items() <= more["metadata"].items()
            and asked.get("status") in (None, more["status"])
            and asked.get("failed") in (None, any(isinstance(outcome.result, Failure) for outcome in outcomes))
        )

    expected = [id_ for id_, outcomes, more in reversed(made) if is_asked_for(outcomes, more)][: asked.get("limit")]
    unwritten = await ids(store, **asked)
    await soon(lambda: written(location) == 60)

    assert unwritten == expected
    assert await ids(store, **asked) == expected


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", [name for name in FILTERS if name not in ("all", "status", "not failed")])
async def test_no_filter_reads_a_whole_table(name: str, store: Store) -> None:
    asked = ComparisonFilter(**{"until": 2**62, "limit": 20, **FILTERS[name]}).select()
    statement = str(asked.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
    async with store.database.read_transaction() as connection:
        plan = [row.detail for row in await connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]

    assert not [line for line in plan if line.startswith("SCAN")], plan
    assert not [line for line in plan if "TEMP B-TREE" in line and "ORDER BY" in line], plan


async def test_the_newest_come_first_and_times_are_bounds(store: Store) -> None:
    made = [ended(store, created=number * 10.0) for number in (3, 1, 2)]
    numbers = {number: store.history.create_number(number * 10.0) & ~1023 for number in (1, 2, 3)}

    assert await ids(store) == [made[0], made[2], made[1]]
    assert await ids(store, since=numbers[2]) == [made[0], made[2]]
    assert await ids(store, until=numbers[2]) == [made[1]]


async def test_it_is_written_within_a_second(store: Store, location: str) -> None:
    for wanted in (1, 2, 3):
        ended(store)
        await soon(lambda wanted=wanted: written(location) == wanted, within_s=1.0)  # type: ignore[misc]


async def test_the_last_of_it_is_written_at_the_end(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for _ in range(300):
            ended(store, metadata={"a": "b"})

    assert written(location) == 300
    assert (
        rows(location, "SELECT count(*) FROM answers") == rows(location, "SELECT count(*) FROM comparison_metadata") == [(300,)]
    )


async def test_two_that_write_one_file_keep_both_apart(location: str) -> None:
    async with open_store(location) as one, open_store(location) as other:
        assert one
        assert other
        made = [ended(which) for _ in range(30) for which in (one, other)]
        await soon(lambda: written(location) == 60)

        assert sorted(await ids(one)) == sorted(made)


async def test_readers_that_take_long_do_not_hold_up_the_writing(store: Store, location: str) -> None:
    reading = [store.database.read_transaction() for _ in range(MAX_READERS)]
    for one in reading:
        await (await one.__aenter__()).execute(text("SELECT * FROM comparisons"))
    ended(store)
    await soon(lambda: written(location) == 1, within_s=1.5)
    for one in reading:
        await one.__aexit__(None, None, None)


@pytest.mark.parametrize("location", [MEMORY, *BOTH], indirect=True)
async def test_a_page_that_is_broken_off_harms_nothing(location: str) -> None:
    async with open_store(location) as store:
        assert store
        made = [ended(store) for _ in range(200)]
        await asyncio.sleep(1)
        for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004) * 4:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await ids(store)

        assert await ids(store) == made[::-1]


async def test_a_locked_database_delays_nothing_and_loses_nothing(store: Store, location: str, logged: list[str]) -> None:
    holder = Beside(location)
    holder.hold()
    ended(store)
    await soon(lambda: any("history.write_failed" in line for line in logged), within_s=6)
    for _ in range(20):
        ended(store)
    meanwhile = await ids(store)
    holder.release()
    holder.close()
    await soon(lambda: written(location) == 21)
    await soon(lambda: any("history.write_recovered" in line for line in logged))

    assert len(meanwhile) == 21
    assert len([line for line in logged if "history.write_failed" in line]) == 1


async def test_more_than_may_wait_is_not_kept_and_said_once(location: str, logged: list[str]) -> None:
    async with open_store(location) as store:
        assert store
        holder = Beside(location)
        holder.hold()
        for _ in range(MAX_WAITING + 50):
            ended(store)
        holder.release()
        holder.close()
        await soon(lambda: any("overflow_ended" in line for line in logged), within_s=20)

    told = [json.loads(line) for line in logged]
    assert [line["event"] for line in told if line["level"] == "error"] == ["history.overflowed"]
    assert [line["lost"] for line in told if line["event"] == "history.overflow_ended"] == [50]
    assert written(location) == MAX_WAITING


async def test_what_waits_is_bounded_in_bytes(location: str) -> None:
    async with open_store(location) as store:
        assert store
        body = b"x" * 2**20
        for _ in range(100):
            ended(store, body=body)
        assert len(await ids(store)) == 63

    assert written(location) == 63


async def test_texts_are_kept_only_where_that_is_asked(tmp_path: Path) -> None:
    found: dict[str, bytes] = {}
    for mode in ("usage", "full"):
        path = tmp_path / f"{mode}.db"
        async with open_store(str(path), history=mode) as store:
            assert store
            unwritten = await whole(store, ended(store, said(answered()), said(failed("server"), index=1)))
            assert [answer.content is not None for answer in unwritten.answers] == [mode == "full"] * 2
        found[mode] = path.read_bytes()

    assert SECRET.encode() not in found["usage"]
    assert found["full"].count(SECRET.encode()) >= 3


async def test_a_long_text_stands_once_however_often_it_is_said(location: str) -> None:
    long = SECRET * 100
    async with open_store(location, history="full") as store:
        assert store
        for place in range(4):
            id_ = ended(store, said(answered(), long), said(answered(), long, index=1), body=b'{"a": "%s"}' % long.encode())
            unwritten = await whole(store, id_)
            await soon(lambda place=place: written(location) == place + 1)  # type: ignore[misc]
            found = await whole(store, id_)

    assert found == unwritten
    assert json.loads(found.answers[1].content or "")["text"] == long
    assert json.loads(found.comparison.request or "")["a"] == long
    assert rows(location, "SELECT count(*) FROM history_texts") == [(2,)]


async def test_what_no_database_takes_is_kept_without_it(location: str) -> None:
    odd = "nul\0 half \ud83d"
    async with open_store(location, history="full") as store:
        assert store
        answer = Answer(odd, reasoning=odd, tool_calls=({"id": odd, "n": float("nan"), "o": [odd]},))
        outcome = replace(said(answered(odd)), result=Completion((Choice(answer, "stop"),), KNOWN, model=odd))
        id_ = ended(store, outcome, account_id=odd, metadata={odd: odd}, body=odd.encode("utf-8", "surrogatepass"))
        await soon(lambda: written(location) == 1)
        found = await whole(store, id_)

    (kept,) = found.answers
    assert found.metadata == {"nul\ufffd half ?": "nul\ufffd half ?"}
    assert (kept.model, found.comparison.account_id) == ("nul\ufffd half ?", "nul\ufffd half ?")
    assert json.loads(kept.content or "")["tool_calls"][0]["n"] is None


async def test_figures_that_are_no_figures_spoil_nothing(location: str) -> None:
    async with open_store(location) as store:
        assert store
        ended(store, said(answered(usage=Usage(10**30, -5, 3), usd=float("inf"))))

    assert rows(location, "SELECT input_tokens, output_tokens, cached_tokens, cost_usd, unknown_usage FROM comparisons") == [
        (None, None, 3, None, 1)
    ]


async def test_what_is_old_is_deleted_with_its_texts_and_the_rest_stays(location: str) -> None:
    long, now = SECRET * 100, time.time()
    async with open_store(location, history="full", history_days=2) as store:
        assert store
        for _ in range(130):
            ended(store, said(answered(), f"{long} of old"), created=now - 3 * DAY_S, metadata={"a": "b"})
        shared = ended(store, said(answered(), long), created=now - 3 * DAY_S)
        young = [ended(store, said(answered(), long), created=now - age_s, metadata={"a": "b"}) for age_s in (3600, 1)]
        await soon(lambda: written(location) == 133)
        await store.retention.delete_old()
        left = await ids(store)

        assert left == young[::-1]
        assert await store.history.find(shared) is None
    counts = {
        table: rows(location, f"SELECT count(*) FROM {table}") for table in ("answers", "comparison_metadata", "history_texts")
    }
    assert counts == {"answers": [(2,)], "comparison_metadata": [(2,)], "history_texts": [(1,)]}


async def test_without_days_nothing_is_deleted(location: str) -> None:
    async with open_store(location, history_days=0) as store:
        assert store
        ended(store, created=1.0)
        await soon(lambda: written(location) == 1)
        await store.retention.delete_old()

        assert len(await ids(store)) == 1


async def test_it_is_deleted_without_being_asked(location: str) -> None:
    async with open_store(location) as store:
        assert store
        ended(store, created=1.0)
    async with open_store(location):
        await soon(lambda: written(location) == 0, within_s=10)


async def test_in_memory_only_the_newest_are_kept() -> None:
    async with open_store(MEMORY, history="full") as store:
        assert store
        made = [ended(store, said(answered(), f"{SECRET * 100} {number}")) for number in range(MAX_COMPARISONS_IN_MEMORY + 300)]
        async with asyncio.timeout(20):
            while len(await ids(store, limit=10_000)) > MAX_COMPARISONS_IN_MEMORY:
                await asyncio.sleep(0.1)
        left = await ids(store, limit=10_000)
        await store.retention.delete_old()
        async with store.database.read_transaction() as connection:
            texts = await connection.scalar(text("SELECT count(*) FROM history_texts"))

    assert left == made[: -MAX_COMPARISONS_IN_MEMORY - 1 : -1]
    assert texts == MAX_COMPARISONS_IN_MEMORY


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_a_text_that_is_said_again_while_it_is_deleted_stays(location: str) -> None:
    """Another process renews it in a transaction that ends only after the deleting has found it old."""
    async with open_store(location, history="full", history_days=2) as store:
        assert store
        ended(store, said(answered(), SECRET * 100), created=time.time() - 3 * DAY_S)
        await soon(lambda: written(location) == 1)
        with Beside(location) as other:
            other.execute("BEGIN")
            other.execute(f"UPDATE history_texts SET day = {int(time.time()) // DAY_S}")
            deleting = asyncio.create_task(store.retention.delete_old())
            await soon(lambda: bool(rows(location, "SELECT 1 FROM pg_locks WHERE NOT granted")))
            other.release()
        await deleting

    assert written(location) == 0
    assert rows(location, "SELECT count(*) FROM history_texts") == [(1,)]
