"""A store is opened, brought up to date or refused: real files, real processes."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from fanout.errors import ConfigError
from fanout.store import MEMORY, open_store
from fanout.store.counts import Question
from fanout.store.database import Database
from fanout.store.tables import metadata
from fanout.store.upgrade import HEAD, MIGRATIONS
from tests.commands import ran, run
from tests.store.ended import answered

ALWAYS = Question(0, 2**40, group_by=())


async def refusal(location: str) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_store(location):
            pass
    return str(caught.value)


def written_by(version: str, path: Path) -> None:
    """A database whose tables claim to be of this version."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    database.close()


async def test_a_file_is_made_with_its_folders_for_its_owners_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "share" / "fanout" / "fanout.db"

    async with open_store(str(path)) as store:
        assert store
        assert store.name == str(path)
        modes = {file.suffix: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {".db": 0o600, ".db-wal": 0o600, ".db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("location", ["fanout.db", "sqlite:///{}/fanout.db", "sqlite+aiosqlite:///{}/fanout.db"])
async def test_a_location_is_a_path_or_a_url(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_store(location.format(tmp_path)) as store:
        assert store
        store.usage.observe(answered())
    async with open_store(str(tmp_path / "fanout.db")) as store:
        assert store
        assert [total.counts.calls for total in await store.usage.report(ALWAYS)] == [1]


@pytest.mark.parametrize("location", [MEMORY, "sqlite://", "sqlite:///:memory:"])
async def test_in_memory_it_lasts_as_long_as_it_is_open(location: str) -> None:
    for _ in range(2):
        async with open_store(location) as store:
            assert store
            store.usage.observe(answered())
            await asyncio.sleep(0.7)  # written
            store.usage.observe(answered())
            assert [total.counts.calls for total in await store.usage.report(ALWAYS)] == [2]


async def test_off_means_none() -> None:
    async with open_store("off") as store:
        assert store is None


async def test_every_connection_is_safe_against_a_crash_and_waits_for_other_writers(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "a.db"))
    asked = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 2000, "foreign_keys": 1}

    async with database.reading() as one, database.reading() as other:
        found = [{name: await on.scalar(text(f"PRAGMA {name}")) for name in asked} for on in (one, other)]
    await database.close()

    assert found == [asked, asked]


async def test_a_reading_transaction_sees_what_it_saw_first(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with open_store(path):
        database = Database(path)
        async with database.reading() as reading:
            before = await reading.scalar(text("SELECT count(*) FROM usage"))
            async with open_store(path) as other:
                assert other
                other.usage.observe(answered())
            after = await reading.scalar(text("SELECT count(*) FROM usage"))
        await database.close()

    assert (before, after) == (0, 0)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("/dev/null/fanout.db", "`/dev/null/fanout.db` cannot be used: Not a directory"),
        ("mysql://u:geheim@host/db", "`mysql` is not known; allowed: a file's path, `sqlite:///…`"),
        ("://geheim", "is no URL; allowed: a file's path"),
    ],
)
async def test_what_cannot_be_opened_is_one_sentence_that_says_what_may_be_set(location: str, sentence: str) -> None:
    told = await refusal(location)

    assert f"FANOUT_STORE: {sentence}" in told
    assert "geheim" not in told


async def test_a_password_is_never_shown() -> None:
    """Whether or not the driver is there: nobody listens at that port."""
    told = await refusal("postgresql://user:geheim@127.0.0.1:1/fanout")

    assert "`postgresql://user:***@127.0.0.1:1/fanout` cannot be used: " in told
    assert "geheim" not in told


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is no database, and somebody needs it." * 100)

    assert "cannot be used: file is not a database" in await refusal(str(path))
    assert path.read_text().startswith("This is no database")


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    written_by("0042", path)

    told = await refusal(str(path))

    assert f"a newer Fanout wrote it (its tables have version 0042, this one knows up to {HEAD}); upgrade Fanout" in told
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'usage'").fetchall() == []
    database.close()


async def test_a_version_that_was_never_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alien.db"
    written_by("5f3c", path)

    assert "its tables have version `5f3c`, which is none of Fanout's" in await refusal(str(path))


async def test_migrations_make_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "a.db")):
        pass

    def differences(connection: Connection) -> list[object]:
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        return found

    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        assert differences(connection) == []
        assert "WITHOUT ROWID" in str(connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'usage'")))
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_a_database_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    async with asyncio.TaskGroup() as group:
        opening = group.create_task(opened(str(path)))
        await asyncio.sleep(0.5)
        assert not opening.done()
        holder.execute("COMMIT")
    holder.close()

    assert opening.result() == "open"


async def opened(location: str) -> str:
    async with open_store(location):
        return "open"


async def test_processes_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from fanout.store import open_store\n"
        "from tests.store.ended import answered\n"
        "async def main():\n"
        "    async with open_store(sys.argv[1]) as store:\n"
        "        store.usage.observe(answered())\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "new.db"

    ended = await asyncio.gather(*(ran([sys.executable, "-c", program, str(path)]) for _ in range(6)))

    assert [(one.code, one.err) for one in ended] == [(0, "")] * 6
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT sum(calls), count(*) FROM usage").fetchone() == (6, 1)
    database.close()


async def test_serving_without_a_usable_store_ends_with_that_sentence() -> None:
    told = await run("serve", "--port", "0", FANOUT_STORE="/dev/null/fanout.db")

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(
        "fanout: environment: FANOUT_STORE: `/dev/null/fanout.db` cannot be used: Not a directory; allowed: "
    )
