"""Usage is counted as calls end, written soon, and reported completely at any time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from fanout.core.schema import Call, Completion, Failure, Outcome, Query, Target
from fanout.core.usage import Usage, UsageTotals
from fanout.store.engine.database import MAX_READERS
from fanout.store.engine.sums import MAX_ROWS, REST
from fanout.store.opening import MEMORY, open_store
from fanout.store.usage import MAX_FOUND_MODELS, GroupUsage, UsageFilter, UsageLedger
from tests.support.builders.outcomes import make_answer, make_failure, make_retry
from tests.support.databases import SYSTEMS, OutsideConnection, query

ALL = UsageFilter(0, 2**40, group_by=())
BY_MODEL = UsageFilter(0, 2**40, group_by=("model",))
DAY, HOUR = 86_400, 3_600


def count_calls(location: str) -> int:
    return int(query(location, "SELECT coalesce(sum(calls), 0) FROM usage")[0][0])


async def wait_until(is_reached: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_reached():
            await asyncio.sleep(0.02)


async def report_single_group(ledger: UsageLedger, question: UsageFilter = ALL) -> GroupUsage:
    (total,) = await ledger.report(question)
    return total


async def test_known_figures_are_summed_and_unknown_ones_counted() -> None:
    async with open_store(MEMORY) as store:
        assert store
        for ended in (
            make_answer(),
            make_answer(usage=Usage(input_tokens=5, output_tokens=0), usd=None),
            make_answer(usage=None, usd=None),
            make_answer(usage=Usage(input_tokens=7), usd=0.0),
            make_failure("timeout"),
            make_failure("rate_limit"),
            make_failure("rate_limit"),
            make_retry(),
        ):
            store.usage.observe(ended)

        total = await report_single_group(store.usage)

    assert total.totals == UsageTotals(
        calls=7, input_tokens=22, output_tokens=4, cached_tokens=2, unknown_usage=2, cost_usd=0.25, cost_unknown=2
    )
    assert (total.answered, total.failures) == (4, {"timeout": 1, "rate_limit": 2})


@pytest.mark.parametrize("ended", [make_failure("timeout"), make_answer(usage=None, usd=None)])
async def test_a_sum_without_known_figures_is_none_before_and_after_writing(ended: Any, location: str) -> None:
    async with open_store(location) as store:
        assert store
        store.usage.observe(ended)
        unwritten = await report_single_group(store.usage)
        await wait_until(lambda: count_calls(location) == 1)
        store.usage.observe(ended)
        both = await report_single_group(store.usage)

    for total in (unwritten, both):
        counts = total.totals
        assert (counts.input_tokens, counts.output_tokens, counts.cached_tokens, counts.cost_usd) == (None,) * 4
    assert both.totals.calls == 2


async def test_a_known_figure_after_an_unknown_one_is_known_in_the_database_too(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for number, ended in enumerate(
            (make_answer(usage=None, usd=None), make_answer(), make_answer(usage=None, usd=None)), 1
        ):
            store.usage.observe(ended)
            await wait_until(lambda wanted=number: count_calls(location) == wanted)  # type: ignore[misc]

    # Sums, since an hour may end in between; a null that stayed one would make its sum null.
    sums = "sum(input_tokens), sum(cost_usd), sum(unknown_usage), sum(cost_unknown)"
    assert query(location, f"SELECT {sums} FROM usage") == [(10, 0.25, 2, 2)]


async def test_a_call_is_written_within_a_second(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for wanted in (1, 2, 3):
            store.usage.observe(make_answer())
            await wait_until(lambda wanted=wanted: count_calls(location) == wanted, within_s=1.0)  # type: ignore[misc]


async def test_waiting_counts_are_written_when_the_store_closes(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for number in range(100):
            store.usage.observe(make_answer(f"model-{number}", "team-a"))

    assert query(location, "SELECT count(*), sum(calls), min(account_id) FROM usage") == [(100, 100, "team-a")]


async def test_every_report_contains_every_call_exactly_once_during_writing(location: str) -> None:
    """Reports run into writes on purpose: each must give exactly what had been counted when it was made."""
    async with open_store(location) as store:
        assert store
        counted = seen = 0

        async def count_on() -> None:
            nonlocal counted
            for number in count():
                store.usage.observe(make_answer(f"model-{number % 50}"))
                counted += 1
                await asyncio.sleep(0.0005)

        counting = asyncio.create_task(count_on())
        for _ in range(150):
            before = counted
            sums = await store.usage.report(BY_MODEL)
            seen = sum(total.totals.calls for total in sums)
            assert before <= seen <= counted
            await asyncio.sleep(0.01)
        counting.cancel()

    assert seen > 1000


async def test_the_counts_of_two_stores_on_one_database_add_up(location: str) -> None:
    async with open_store(location) as one, open_store(location) as other:
        assert one
        assert other
        for _ in range(20):
            one.usage.observe(make_answer())
            other.usage.observe(make_answer())
            other.usage.observe(make_failure("server"))
            await asyncio.sleep(0.06)
        await wait_until(lambda: count_calls(location) == 60)

        total = await report_single_group(one.usage)

    assert (total.totals.calls, total.answered, total.failures) == (60, 40, {"server": 20})
    assert total.totals.cost_usd == pytest.approx(10.0)


@pytest.mark.parametrize("location", [MEMORY, *SYSTEMS], indirect=True)
async def test_a_cancelled_report_leaves_the_store_usable(location: str) -> None:
    """A client that leaves must not take the only connection of a database in memory with it."""
    async with open_store(location) as store:
        assert store
        for number in range(300):
            store.usage.observe(make_answer(f"model-{number}"))
        await asyncio.sleep(1)
        for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004) * 4:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await store.usage.report(BY_MODEL)
        store.usage.observe(make_answer())

        assert (await report_single_group(store.usage)).totals.calls == 301


async def test_slow_readers_do_not_delay_writing(location: str) -> None:
    async with open_store(location) as store:
        assert store
        async with AsyncExitStack() as readers:
            for _ in range(MAX_READERS):
                reading = await readers.enter_async_context(store.database.read_transaction())
                await reading.execute(text("SELECT * FROM usage"))
            store.usage.observe(make_answer())
            await wait_until(lambda: count_calls(location) == 1, within_s=1.0)


@pytest.fixture
def dated_calls(location: str) -> str:
    """A store with calls at these times: two days, three hours, two accounts."""

    async def fill() -> None:
        async with open_store(location):
            pass

    asyncio.run(fill())
    with OutsideConnection(location) as database:
        for minute, account, model in (
            (0, "a", "x"),
            (HOUR - 60, "a", "x"),
            (HOUR, "b", "x"),
            (DAY - 60, "a", "y"),
            (DAY, "", "y"),
        ):
            row = f"({minute}, '{account}', '{model}', 'openai', 'up', 'answered', 1, 10, 1, NULL, 0, 0.5, 0)"
            database.execute(f"INSERT INTO usage VALUES {row}")
    return location


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (ALL, [({}, 5)]),
        (replace(ALL, group_by=("day",)), [({"day": 0}, 4), ({"day": DAY}, 1)]),
        (
            replace(ALL, group_by=("hour",)),
            [({"hour": 0}, 2), ({"hour": HOUR}, 1), ({"hour": 23 * HOUR}, 1), ({"hour": DAY}, 1)],
        ),
        (
            replace(ALL, group_by=("account_id", "day")),
            [
                ({"account_id": "", "day": DAY}, 1),
                ({"account_id": "a", "day": 0}, 3),
                ({"account_id": "b", "day": 0}, 1),
            ],
        ),
        (replace(ALL, group_by=("provider", "upstream_model")), [({"provider": "openai", "upstream_model": "up"}, 5)]),
        (replace(ALL, account_id="a"), [({}, 3)]),
        (replace(ALL, account_id=""), [({}, 1)]),
        (replace(ALL, account_id="nobody"), []),
        (replace(ALL, since=HOUR), [({}, 3)]),
        (replace(ALL, until=HOUR), [({}, 2)]),
        (replace(ALL, since=HOUR, until=DAY), [({}, 2)]),
        (replace(BY_MODEL, limit=1), [({"model": "x"}, 3)]),
    ],
)
async def test_usage_is_summed_by_group_account_and_time(question: UsageFilter, expected: list[Any], dated_calls: str) -> None:
    async with open_store(dated_calls) as store:
        assert store
        found = await store.usage.report(question)

    assert [(total.group, total.totals.calls) for total in found] == expected


async def test_a_locked_database_delays_no_caller_and_loses_nothing(location: str, log_lines: list[str]) -> None:
    async with open_store(location) as store:
        assert store
        holder = OutsideConnection(location)
        holder.hold()
        store.usage.observe(make_answer())
        await wait_until(lambda: any("usage.write_failed" in line for line in log_lines), within_s=6)
        for _ in range(20):  # further failures, and more to count meanwhile
            store.usage.observe(make_answer("other"))
            await asyncio.sleep(0.05)
        meanwhile = await report_single_group(store.usage)
        holder.release()
        holder.close()
        await wait_until(lambda: count_calls(location) == 21)
        await wait_until(lambda: any("usage.write_recovered" in line for line in log_lines))

    events = [json.loads(line) for line in log_lines]
    assert meanwhile.totals.calls == 21
    assert [line["reason"] for line in events if line["level"] == "error"] in (
        ["database is locked"],
        ["canceling statement due to lock timeout"],
    )
    assert count_calls(location) == 21


async def test_closing_loses_nothing_if_a_lock_ends_in_time(location: str) -> None:
    holder = OutsideConnection(location)
    async with open_store(location) as store:
        assert store
        holder.hold()
        store.usage.observe(make_answer())
        asyncio.get_running_loop().call_later(2.5, holder.release)
    holder.close()

    assert count_calls(location) == 1


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)  # nine seconds, and the same code for both
async def test_closing_without_being_able_to_write_logs_how_much_is_lost(location: str, log_lines: list[str]) -> None:
    holder = OutsideConnection(location)
    async with asyncio.timeout(15), open_store(location) as store:
        assert store
        holder.hold()
        store.usage.observe(make_answer())
        store.usage.observe(make_failure("server"))
    holder.close()

    last = json.loads(log_lines[-1])
    assert (last["event"], last["lost"]) == ("usage.lost", 2)


@contextmanager
def limit_pages(pages: dict[str, int]) -> Iterator[None]:
    """Limit the size of every connection's database; the limit is read again whenever a transaction begins."""

    def apply_limit(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {pages['most']}")
        cursor.close()

    event.listen(Engine, "begin", apply_limit)
    try:
        yield
    finally:
        event.remove(Engine, "begin", apply_limit)


async def test_a_full_database_loses_nothing(tmp_path: Path, log_lines: list[str]) -> None:
    path, pages = tmp_path / "a.db", {"most": 2**30}
    with limit_pages(pages):
        async with open_store(str(path)) as store:
            assert store
            pages["most"] = 1  # SQLite takes it as: no larger than now
            for number in range(500):
                store.usage.observe(make_answer(f"a model with a long name, so that pages are needed, {number}"))
            await wait_until(lambda: any("usage.write_failed" in line for line in log_lines))
            meanwhile = await report_single_group(store.usage)
            assert count_calls(str(path)) == 0  # all or nothing
            pages["most"] = 2**30
            await wait_until(lambda: count_calls(str(path)) == 500)

    events = [json.loads(line) for line in log_lines]
    assert meanwhile.totals.calls == 500
    assert [line["reason"] for line in events if line["level"] == "error"] == ["database or disk is full"]


async def test_names_beyond_the_limit_are_counted_together() -> None:
    """Callers choose names: what waits to be written stays bounded all the same."""
    async with open_store(MEMORY) as store:
        assert store
        for number in range(MAX_ROWS + 500):
            store.usage.observe(make_answer(f"model-{number}", f"account-{number}"))
        store.usage.observe(make_answer("model-3", "account-3"))
        by_account = replace(ALL, group_by=("account_id",), limit=2 * MAX_ROWS)
        found = {total.group["account_id"]: total.totals.calls for total in await store.usage.report(by_account)}

    assert (len(found), found[REST], found["account-3"]) == (MAX_ROWS + 1, 500, 2)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("nul\0inside", "nul\ufffdinside"),
        ("half \ud83d of one", "half ? of one"),
        ("ü" * 400, "ü" * 256),
        ("", ""),
        ("it's; DROP TABLE usage", "it's; DROP TABLE usage"),
    ],
)
async def test_any_name_is_stored_and_found_again(name: str, kept: str, location: str) -> None:
    async with open_store(location) as store:
        assert store
        for _ in range(3):
            store.usage.observe(make_answer(name, name))
        unwritten = await report_single_group(store.usage, replace(BY_MODEL, account_id=name))
        await wait_until(lambda: count_calls(location) == 3)
        written = await report_single_group(store.usage, replace(BY_MODEL, account_id=name))

    assert (unwritten.group, unwritten.totals.calls) == (written.group, written.totals.calls) == ({"model": kept}, 3)


async def test_a_cancelled_call_is_counted_as_cancelled() -> None:
    async with open_store(MEMORY) as store:
        assert store
        store.usage.observe(replace(make_answer(), result=Failure("cancelled", "the caller left")))

        assert (await report_single_group(store.usage)).failures == {"cancelled": 1}


async def test_names_that_callers_invent_take_one_row_and_spellings_that_of_their_entry(location: str) -> None:
    def invent(number: int, result: Completion | Failure) -> Outcome:
        target = Target("label", f"up/invented-{number}", "up", f"invented-{number}")
        return Outcome(Call(0, 0, 0, target, Query(prompt="hi")), result)

    def spell(name: str) -> Outcome:
        target = Target("label", name, "up", "gpt", listed_as="GPT")
        return Outcome(Call(0, 0, 0, target, Query(prompt="hi")), Failure("server", "it failed"))

    chance = random.Random(0)
    async with open_store(location) as store:
        assert store
        for number in range(50):
            store.usage.observe(invent(number, Failure("not_found", "no such model")))
            store.usage.observe(spell("".join(chance.choice((letter, letter.upper())) for letter in "gpt")))
        store.usage.observe(invent(1, Completion(())))
    rows = query(location, "SELECT model, provider, upstream_model, sum(calls) FROM usage GROUP BY 1, 2, 3 ORDER BY 1")
    assert rows == [("", "up", "", 50), ("GPT", "up", "gpt", 50), ("up/invented-1", "up", "invented-1", 1)]


async def test_old_usage_is_deleted_and_the_rest_stays(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, started = time.time, int(time.time())
    async with open_store(location, usage_days=2) as store:
        assert store
        for minute in range(3):
            monkeypatch.setattr(time, "time", lambda minute=minute: real() - 3 * DAY + 60 * minute)
            for number in range(40):
                store.usage.observe(make_answer(f"model-{number}"))
        monkeypatch.setattr(time, "time", real)
        store.usage.observe(make_answer("young"))
        await wait_until(lambda: count_calls(location) == 121)
        await store.retention.delete_old()
        left = await store.usage.report(BY_MODEL)
        assert [(row.group["model"], row.totals.calls) for row in left] == [("young", 1)]
        assert query(location, "SELECT min(minute) FROM usage")[0][0] >= started // 60 * 60 - 60


async def test_usage_is_kept_for_ever_where_that_is_wanted(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    async with open_store(location, usage_days=0) as store:
        assert store
        monkeypatch.setattr(time, "time", lambda: real() - 30_000 * DAY)
        store.usage.observe(make_answer())
        monkeypatch.setattr(time, "time", real)
        await wait_until(lambda: count_calls(location) == 1)
        await store.retention.delete_old()
    assert count_calls(location) == 1


async def test_names_that_a_server_answers_to_whatever_they_are_take_a_bounded_number_of_rows(location: str) -> None:
    async with open_store(location) as store:
        assert store
        for number in [*range(MAX_FOUND_MODELS + 50), 3]:
            target = Target("label", f"up/invented-{number}", "up", f"invented-{number}")
            store.usage.observe(Outcome(Call(0, 0, 0, target, Query(prompt="hi")), Completion(())))
    rows = dict(query(location, "SELECT model, sum(calls) FROM usage GROUP BY 1"))
    assert (len(rows), rows[""], rows["up/invented-3"]) == (MAX_FOUND_MODELS + 1, 50, 2)
