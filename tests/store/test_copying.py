"""Backups, taken while a server writes, and put back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fanout.core.errors import ConfigError, FanoutError
from fanout.store.engine.copying import copy_store, require_file
from fanout.store.opening import open_store
from fanout.store.usage import UsageFilter
from tests.support.batches import wait_for_state
from tests.support.builders.outcomes import make_answer
from tests.support.databases import query
from tests.support.postgres import Postgres
from tests.support.server import serve

ALWAYS = UsageFilter(0, 2**40, group_by=())


async def fill(location: str) -> None:
    async with open_store(location) as store:
        assert store
        store.usage.observe(make_answer())


async def count_calls(location: str) -> int:
    async with open_store(location) as store:
        assert store
        [total] = await store.usage.report(ALWAYS)
        return total.totals.calls


async def test_a_copy_of_a_store_that_is_written_is_whole_and_can_be_put_back(tmp_path: Path) -> None:
    """Copies one after the other while a job is recorded; docs/cli.md has the two commands, which are run there."""
    live, copy, put_back = tmp_path / "live.db", tmp_path / "copy.db", tmp_path / "new" / "fanout.db"
    job = {"items": [{"prompt": f"row {number}"} for number in range(80)], "models": ["local/ngram-2"]}
    async with serve(None, FANOUT_STORE=str(live)) as server:
        async with server.session.post("/v1/jobs", json=job | {"parameters": {"max_tokens": 1}}) as response:
            id_ = (await response.json())["id"]
        counts: list[int] = []
        for number in range(1, 100):
            await asyncio.to_thread(copy_store, live, tmp_path / f"{number}.db")
            counts += query(str(tmp_path / f"{number}.db"), "SELECT count(*) FROM attempts")[0]
            if counts[-1] == 80:
                break
        await wait_for_state(server.session, f"/v1/jobs/{id_}", "done")  # its end is recorded after its last attempt
        await asyncio.to_thread(copy_store, live, copy)
        async with server.session.post("/v1/completion", json={"model": "local/ngram-2", "prompt": "later"}) as response:
            assert response.status == 200
    assert counts == sorted(counts)
    assert len(set(counts)) > 2, "they were taken while rows were written"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("*copy.db*")] == ["copy.db"], "it is complete in itself"

    copy_store(copy, require_file(str(put_back)))
    async with serve(None, FANOUT_STORE=str(put_back)) as server, server.session.get(f"/v1/jobs/{id_}") as response:
        assert (await response.json())["state"] == "done"
    assert len(query(str(live), "SELECT * FROM comparisons")) == 1
    assert query(str(put_back), "SELECT * FROM comparisons") == [], "it is as it was when it was copied"


async def test_a_copy_replaces_nothing_and_leaves_nothing_behind_if_it_fails(tmp_path: Path) -> None:
    live, broken, other, newer = (tmp_path / f"{name}.db" for name in ("live", "broken", "other", "newer"))
    await fill(str(live))
    copy_store(live, newer)
    with closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    pages = bytearray(live.read_bytes())
    pages[8192:] = os.urandom(len(pages) - 8192)
    broken.write_bytes(pages)
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE a (b)")
    (tmp_path / "left.db-wal").write_bytes(b"of another store")
    files = set(tmp_path.iterdir())

    def refuse(source: Path, target: str) -> str:
        with pytest.raises(FanoutError) as caught:
            copy_store(source, tmp_path / target)
        return str(caught.value)

    assert "live.db` exists: a copy replaces nothing" in refuse(live, "live.db")
    assert "left.db-wal` exists" in refuse(live, "left.db"), "SQLite would take it for the copy's own"
    assert "does not exist" in refuse(tmp_path / "typo.db", "a.db")
    assert "is no store of Fanout's" in refuse(other, "a.db")
    assert "is of a newer Fanout (version 9999" in refuse(newer, "a.db")
    assert "broken.db` cannot be copied" in refuse(broken, "a.db")
    assert "cannot be written" in refuse(live, "live.db/a.db")
    assert set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("location", [":memory:", "off", "postgresql://me:secret@db.example/fanout"])
def test_a_store_without_a_file_is_refused_with_what_to_do(location: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_file(location)
    assert ("pg_dump" in str(caught.value)) == location.startswith("postgresql")
    assert "secret" not in str(caught.value)


@pytest.fixture
def databases(postgres_server: Postgres) -> Iterator[tuple[str, str]]:
    """A database with tables, and one without."""
    created = asyncio.run(postgres_server.create()), asyncio.run(postgres_server.create(template="template0"))
    yield created
    for location in created:
        asyncio.run(postgres_server.drop(location))


async def test_a_postgresql_database_is_dumped_and_restored_by_its_own_programs(
    tmp_path: Path, databases: tuple[str, str]
) -> None:
    location, empty = databases
    if not shutil.which("pg_dump"):
        reason = "NO PG_DUMP: PostgreSQL's backup was not tried; Debian's package `postgresql` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    await fill(location)
    dump = tmp_path / "fanout.dump"

    for command in (["pg_dump", "--format=custom", f"--file={dump}", location], ["pg_restore", f"--dbname={empty}", str(dump)]):
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    assert await count_calls(empty) == await count_calls(location) == 1


VERSION_TABLE = "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('0001');"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW alembic_version AS WITH RECURSIVE t(version_num) AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t",
        VERSION_TABLE + "CREATE TABLE usage (a); CREATE TRIGGER t AFTER INSERT ON usage BEGIN DELETE FROM usage; END",
        VERSION_TABLE + "CREATE VIRTUAL TABLE v USING fts5(a)",
        VERSION_TABLE + "CREATE TABLE audit (number INTEGER PRIMARY KEY)",
        "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES (5)",
        "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('9' || char(27))",
    ],
    ids=["endless", "trigger", "virtual", "unprotected", "number", "control"],
)
def test_a_file_that_is_no_store_as_we_make_it_is_not_put_back(tmp_path: Path, sql: str) -> None:
    hostile = tmp_path / "hostile.db"
    with closing(sqlite3.connect(hostile)) as database:
        database.executescript(sql)

    with pytest.raises(ConfigError, match="is no store"):
        copy_store(hostile, tmp_path / "fanout.db")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.db"]
