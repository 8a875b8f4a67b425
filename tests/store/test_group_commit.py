"""Records of many tasks in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection

from fanout.store.engine.database import Database
from fanout.store.engine.writers import MAX_RECORDS, GroupCommit

TURNS = 20


class Groups(list[list[int]]):
    """The groups that were written."""

    def write(self, _: Connection, records: Sequence[int]) -> list[None]:
        self.append(list(records))
        return [None] * len(records)


async def put_all(path: Path, turns: Sequence[int]) -> Groups:
    """Put a record for each number, in as many turns of the event loop."""
    database, groups = Database(str(path / "f.db")), Groups()
    commit = GroupCommit(database, groups.write)

    async def put_later(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await commit.put(turns)

    try:
        async with commit.run():
            await asyncio.gather(*map(put_later, turns))
    finally:
        await database.close()
    return groups


async def test_records_of_tasks_that_go_on_one_after_the_other_are_one_group(tmp_path: Path) -> None:
    assert await put_all(tmp_path, range(TURNS)) == [list(range(TURNS))]


async def test_a_group_is_bounded_and_the_rest_is_the_next_one(tmp_path: Path) -> None:
    groups = await put_all(tmp_path, [0] * (MAX_RECORDS + 1))

    assert list(map(len, groups)) == [MAX_RECORDS, 1]


async def test_what_comes_while_a_group_is_written_is_the_next_one(tmp_path: Path) -> None:
    database, groups = Database(str(tmp_path / "f.db")), Groups()
    commit = GroupCommit(database, groups.write)
    try:
        async with commit.run():
            first = commit.put(0)
            while not groups:  # its thread is at work
                await asyncio.sleep(0)
            await asyncio.gather(first, *map(commit.put, range(1, TURNS)))
    finally:
        await database.close()

    assert groups == [[0], list(range(1, TURNS))]
