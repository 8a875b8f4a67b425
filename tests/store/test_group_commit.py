"""Records of many tasks in one transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from fanout.store.engine import writers
from fanout.store.engine.database import Database
from fanout.store.engine.writers import MAX_RECORDS, GroupCommit

TURNS = 20
Groups = list[list[int]]


@asynccontextmanager
async def open_commit(path: Path, may_write: threading.Event | None = None) -> AsyncGenerator[tuple[GroupCommit[int], Groups]]:
    """Give a writer, and the groups that it has begun to write."""
    groups: Groups = []

    def write(_: Connection, records: Sequence[int]) -> list[None]:
        groups.append(list(records))
        assert may_write is None or may_write.wait(10)
        return [None] * len(records)

    database = Database(str(path / "f.db"))
    commit = GroupCommit(database, write)
    try:
        async with asyncio.timeout(20), commit.run():
            yield commit, groups
    finally:
        await database.close()


async def put_later(commit: GroupCommit[int], turns: int) -> None:
    """Put a record after some turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    await commit.put(turns)


async def test_records_of_tasks_that_go_on_one_after_the_other_are_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MAX_WAIT_S", 10.0)  # however busy the machine is
    async with open_commit(tmp_path) as (commit, groups):
        await asyncio.gather(*(put_later(commit, turns) for turns in range(TURNS)))

    assert groups == [list(range(TURNS))]


async def test_a_group_is_bounded_and_the_rest_is_the_next_one(tmp_path: Path) -> None:
    async with open_commit(tmp_path) as (commit, groups):
        await asyncio.gather(*map(commit.put, range(MAX_RECORDS + 1)))

    assert list(map(len, groups)) == [MAX_RECORDS, 1]


async def test_a_record_that_comes_alone_waits_for_no_time_to_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_commit(tmp_path) as (commit, groups):
        await asyncio.sleep(0)  # the writer waits for records now
        written = commit.put(0)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_later", None)  # whoever waited for a time would fail
            await written

    assert groups == [[0]]


async def test_what_comes_while_a_group_is_written_is_the_next_one(tmp_path: Path) -> None:
    may_write = threading.Event()
    async with open_commit(tmp_path, may_write) as (commit, groups):
        first = commit.put(0)
        while not groups:
            await asyncio.sleep(0)
        others = [asyncio.create_task(put_later(commit, turns)) for turns in range(1, TURNS)]
        await asyncio.sleep(0.05)
        may_write.set()
        await asyncio.gather(first, *others)

    assert groups == [[0], list(range(1, TURNS))]
