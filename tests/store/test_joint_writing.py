"""What waits for the tables of usage, times and history is written in one transaction, and by itself where that fails."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import StoreError
from fanout.core.schema import Timing
from fanout.store.batches import BatchStore
from fanout.store.engine.file_threads import FileThreads
from fanout.store.engine.location import parse_location
from fanout.store.history.writing import HistoryTables
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import Store, open_store
from tests.store.test_history import count_comparisons, record, wait_until
from tests.support.builders.outcomes import make_answer
from tests.support.databases import OutsideConnection, query


def count(location: str, table: str) -> int:
    return int(query(location, f"SELECT coalesce(sum(calls), 0) FROM {table}")[0][0])


def run_sql(location: str, sql: str) -> None:
    outside = OutsideConnection(location)
    outside.execute(sql)
    outside.close()


def end_request(store: Store) -> None:
    """End a request of one call that was answered, which counts a wait and an answer."""
    outcome = replace(make_answer(), timing=Timing(attempts=1, call_s=0.1))
    store.observe(outcome)
    record(store, outcome)


async def test_what_the_history_writes_takes_usage_and_times_along(bare_location: str) -> None:
    async with open_store(bare_location, is_reading=True) as store:
        assert store
        end_request(store)
        await store.history.write()

        assert (count_comparisons(bare_location), count(bare_location, "usage"), count(bare_location, "call_times")) == (
            1,
            1,
            2,
        )
        await store.write()
        assert (count(bare_location, "usage"), count(bare_location, "call_times")) == (1, 2)


@pytest.mark.parametrize("broken", ["comparisons", "usage"])
async def test_a_table_that_cannot_be_written_holds_up_no_other(broken: str, bare_location: str, log_lines: list[str]) -> None:
    async with open_store(bare_location) as store:
        assert store
        run_sql(bare_location, f"ALTER TABLE {broken} RENAME TO hidden")
        others = {"usage": 1, "call_times": 2}
        others.pop(broken, None)
        end_request(store)
        await wait_until(lambda: {table: count(bare_location, table) for table in others} == others)
        if broken == "usage":
            await wait_until(lambda: count_comparisons(bare_location) == 1)
        else:
            await wait_until(lambda: any("history.write_failed" in line for line in log_lines))
        run_sql(bare_location, f"ALTER TABLE hidden RENAME TO {broken}")

    assert (count_comparisons(bare_location), count(bare_location, "usage"), count(bare_location, "call_times")) == (1, 1, 2)


async def test_what_a_slow_failing_write_has_taken_along_is_written_soon(
    bare_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own writer has looked for it in vain meanwhile."""
    write = HistoryTables._write
    failed: list[bool] = []

    def fail_slowly(*given: Any, **named: Any) -> None:
        if not failed:
            failed.append(True)
            time.sleep(1.0)
            raise OSError("the disk is slow")
        write(*given, **named)

    monkeypatch.setattr(HistoryTables, "_write", fail_slowly)
    async with open_store(bare_location) as store:
        assert store
        end_request(store)
        await wait_until(lambda: (count(bare_location, "usage"), count(bare_location, "call_times")) == (1, 2), within_s=5)
        assert failed


async def test_usage_is_written_by_itself_where_no_comparison_ends(bare_location: str) -> None:
    async with open_store(bare_location) as store:
        assert store
        store.observe(make_answer())
        await wait_until(lambda: count(bare_location, "usage") == 1)


async def test_a_look_for_jobs_that_cannot_be_made_is_a_store_error(bare_location: str) -> None:
    """Each of those that are made all the time, past SQLAlchemy."""
    async with open_store(bare_location) as store:
        assert store
        jobs, batches = JobStore(store.database), BatchStore(store.database)
        assert (await jobs.has_unended(), await batches.list_due(()), await store.audit.find_newest()) == (False, [], 0)
        for table in ("batches", "audit"):
            run_sql(bare_location, f"ALTER TABLE {table} RENAME TO hidden_{table}")
        for look in (batches.list_due(()), store.audit.find_newest()):
            with pytest.raises(StoreError, match=r"batches|audit"):
                await look
        for table in ("batches", "audit"):
            run_sql(bare_location, f"ALTER TABLE hidden_{table} RENAME TO {table}")
        looks = [asyncio.create_task(jobs.has_unended()) for _ in range(20)]
        await asyncio.sleep(0)
        for look_task in looks[::2]:
            look_task.cancel()
        assert await asyncio.gather(*looks[1::2]) == [False] * 10


async def test_closing_leaves_a_connection_alone_that_a_look_still_uses(tmp_path: Path) -> None:
    """Closing it would wait for the look, whose caller may have given it up because the disk does not answer."""
    readers = FileThreads(parse_location(str(tmp_path / "a.db")), "reader", threads=2, begin="BEGIN")
    await readers.run(lambda connection: None)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000000) SELECT max(i) FROM n"
    look = asyncio.create_task(readers.peek(counting))
    await wait_until(lambda: bool(readers._peeking))
    await readers.close()
    assert not look.done()
    assert await look == 8_000_000


async def test_a_file_is_written_again_after_a_transaction_that_could_not_be_committed(tmp_path: Path) -> None:
    """As SQLAlchemy leaves it where another process reads and there is no WAL: it has forgotten what the driver has open."""
    threads = FileThreads(parse_location(str(tmp_path / "a.db")), "writer")
    try:
        await threads.run(lambda connection: connection.exec_driver_sql("CREATE TABLE t (x)"))
        left = await threads.peek("BEGIN")
        await threads.run(lambda connection: connection.exec_driver_sql("INSERT INTO t VALUES (1)"))
        found = await threads.peek("SELECT count(*) FROM t")
    finally:
        await threads.close()

    assert (left, found) == (None, 1)
