"""Opening a store: it is created, brought up to date or refused; with real files and real processes."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from fanout.core.errors import ConfigError
from fanout.core.usage import UsageTotals
from fanout.store.engine import connections
from fanout.store.engine.connections import LOCK_TIMEOUT_MS
from fanout.store.engine.database import Database
from fanout.store.engine.upgrade import HEAD, MIGRATIONS, VERSION
from fanout.store.opening import MEMORY, open_store
from fanout.store.tables import PARTIAL_INDEXES, metadata
from fanout.store.usage import UsageFilter
from tests.support.builders.outcomes import make_answer
from tests.support.cli import run_command, run_fanout
from tests.support.databases import OutsideConnection, query
from tests.support.postgres import PASSWORD, Postgres

NUMBERS = sorted(path.name[1:5] for path in (MIGRATIONS / "versions").glob("v*.py"))
ALWAYS = UsageFilter(0, 2**40, group_by=())


async def read_refusal(location: str) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_store(location):
            pass
    return str(caught.value)


def create_version_table(version: str, location: str) -> None:
    """Create a database whose tables claim to have this version."""
    with OutsideConnection(location) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute(f"INSERT INTO alembic_version VALUES ('{version}')")


async def migrate(location: str, version: str) -> None:
    """Create the tables as the Fanout of this version would."""

    def upgrade(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, version)

    database = Database(location)
    async with database.write_transaction() as connection:
        await connection.run_sync(upgrade)
    await database.close()


async def test_a_new_file_and_its_folders_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "share" / "fanout" / "fanout.db"

    async with open_store(str(path)) as store:
        assert store
        assert store.name == str(path)
        modes = {file.suffix: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {".db": 0o600, ".db-wal": 0o600, ".db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "location",
    [
        "{}/link.db",
        "sqlite:///{}/link.db",
        "sqlite:///file:{}/real.db?uri=true",
        "sqlite:///file:{}/real.db?mode=rwc&uri=1",
        "sqlite:///file:{}/real.db?vfs=unix&uri=Yes",
    ],
)
@pytest.mark.parametrize("is_link", [True, False])
async def test_the_file_is_its_owners_alone_by_whatever_path(location: str, is_link: bool, tmp_path: Path) -> None:
    """Through a link that leads nowhere yet, and by SQLite's own kind of URL."""
    location = location if is_link else location.replace("link", "real")
    (tmp_path / "link.db").symlink_to("real.db")

    async with open_store(location.format(tmp_path)) as store:
        assert store
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(("link.db", "real.db", "real.db-wal", "real.db-shm"), 0o600)


async def test_a_url_that_creates_nothing_is_left_alone(tmp_path: Path) -> None:
    assert "unable to open database file" in await read_refusal(f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["fanout.db", "sqlite:///{}/fanout.db", "sqlite+aiosqlite:///{}/fanout.db"])
async def test_a_location_is_a_path_or_a_url(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_store(location.format(tmp_path)) as store:
        assert store
        store.usage.observe(make_answer())
    async with open_store(str(tmp_path / "fanout.db")) as store:
        assert store
        assert [total.totals.calls for total in await store.usage.report(ALWAYS)] == [1]


@pytest.mark.parametrize("location", [MEMORY, "sqlite://", "sqlite:///:memory:"])
async def test_a_store_in_memory_lasts_as_long_as_it_is_open(location: str) -> None:
    for _ in range(2):
        async with open_store(location) as store:
            assert store
            store.usage.observe(make_answer())
            await asyncio.sleep(0.7)  # written
            store.usage.observe(make_answer())
            assert [total.totals.calls for total in await store.usage.report(ALWAYS)] == [2]


async def test_off_opens_no_store() -> None:
    async with open_store("off") as store:
        assert store is None


async def test_every_sqlite_connection_survives_a_crash_and_waits_for_other_writers(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "a.db"))
    expected = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 2000, "foreign_keys": 1}

    def read_settings(connection: Connection) -> dict[str, object]:
        return {name: connection.scalar(text(f"PRAGMA {name}")) for name in expected}

    async with database.read_transaction() as one, database.read_transaction() as other, database.write_transaction() as third:
        found = [await each.run_sync(read_settings) for each in (one, other, third)]
    found.append(await database.write(read_settings))
    await database.close()

    assert found == [expected] * 4


async def test_a_read_transaction_keeps_seeing_what_it_saw_first(location: str) -> None:
    async with open_store(location):
        database = Database(location)
        async with database.read_transaction() as reading:
            before = await reading.scalar(text("SELECT count(*) FROM usage"))
            async with open_store(location) as other:
                assert other
                other.usage.observe(make_answer())
            after = await reading.scalar(text("SELECT count(*) FROM usage"))
        await database.close()

    assert (before, after) == (0, 0)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("/dev/null/fanout.db", "`/dev/null/fanout.db` cannot be used: Not a directory"),
        ("mysql://u:geheim@host/db", "`mysql` is not known; allowed: a file's path, `sqlite:///…`"),
        ("://geheim", "is not a valid URL; allowed: a file's path"),
        ("postgresql://u:vor@geheim@host/db", "has more than one `@`: within a user or password it is written `%40`"),
        ("postgresql://u:vor@geh/eim?geheim@host/db", "has more than one `@`"),
        ("postgresql:/u:geheim@host/db", "is not a valid URL; allowed: a file's path"),
        ("postgres+asyncpg:u:geheim@host/db", "is not a valid URL; allowed: a file's path"),
        ("postgresql://u:geh:eim@host:geheim/db", "is not a valid URL; allowed: a file's path"),
        ("postgresql//u:geheim@host/db", "is not a valid URL; allowed: a file's path"),
        ("host=db user=u password=geheim", "is a connection string of keywords, which is written as a URL here"),
        ("dbname = fanout password=geheim", "is a connection string of keywords"),
        ("postgres://u:x@host/db?password=geheim", "`password` is not an option of a PostgreSQL URL"),
        ("sqlite:///file:a.db?uri=geheim", "`uri` is neither `true` nor `false`"),
        ("sqlite:///a.db?timeout=long", "`a.db` cannot be used: could not convert string to float: 'long'"),
        (
            "postgresql://u@host/db?password=geheim",
            "`password` is not an option of a PostgreSQL URL; allowed after `?`: host, port, ssl, sslmode",
        ),
    ],
)
async def test_an_unusable_location_is_reported_with_what_is_allowed(location: str, sentence: str) -> None:
    message = await read_refusal(location)

    assert f"FANOUT_STORE: {sentence}" in message
    assert "geheim" not in message


async def test_an_error_never_shows_the_password() -> None:
    """With or without the driver: nobody listens at that port."""
    message = await read_refusal("postgresql://user:geheim@127.0.0.1:1/fanout")

    assert "`postgresql://127.0.0.1:1/fanout` cannot be used: " in message
    assert "geheim" not in message


async def test_a_file_that_is_not_a_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is no database, and somebody needs it." * 100)

    assert "cannot be used: file is not a database" in await read_refusal(str(path))
    assert path.read_text().startswith("This is no database")


@pytest.mark.parametrize(
    ("database", "password", "why"),
    [
        ("migrated", "geheim-falsch", 'password authentication failed for user "fanout"'),
        ("absent", PASSWORD, 'database "absent" does not exist'),
        ("migrated?sslmode=require", PASSWORD, "rejected SSL upgrade"),
    ],
)
async def test_a_refusal_by_postgresql_is_quoted_without_the_password(
    database: str, password: str, why: str, postgres_server: Postgres, log_lines: list[str]
) -> None:
    message = await read_refusal(postgres_server.url(database, password=password))

    assert f"`postgresql://127.0.0.1:{postgres_server.port}/{database.partition('?')[0]}` cannot be used: " in message
    assert why in message
    assert "geheim" not in message + "".join(log_lines)


async def test_the_name_of_a_store_does_not_contain_the_password(location: str) -> None:
    async with open_store(location) as store:
        assert store
        assert PASSWORD not in f"{store.name} {store.database} {vars(store.database)}"


async def test_a_store_that_a_newer_fanout_wrote_is_refused(bare_location: str) -> None:
    create_version_table("0042", bare_location)

    message = await read_refusal(bare_location)

    assert f"a newer Fanout wrote it (its tables have version 0042, this one knows up to {HEAD}); upgrade Fanout" in message
    assert PASSWORD not in message
    database = Database(bare_location)
    async with database.read_transaction() as connection:
        assert await connection.run_sync(lambda inner: inspect(inner).get_table_names()) == ["alembic_version"]
    await database.close()


async def test_a_version_that_is_not_fanouts_is_refused(bare_location: str) -> None:
    create_version_table("5f3c", bare_location)

    assert "its tables have version `5f3c`, which is not one of Fanout's" in await read_refusal(bare_location)


@pytest.mark.parametrize("way", ["created", "migrated"])
async def test_the_tables_are_those_that_the_code_declares(way: str, bare_location: str) -> None:
    if way == "migrated":
        await migrate(bare_location, HEAD)
    async with open_store(bare_location):
        pass

    def find_differences(connection: Connection) -> list[object]:
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        return found

    database = Database(bare_location)
    async with database.read_transaction() as connection:
        assert await connection.run_sync(find_differences) == []
        if database.dialect == "sqlite":
            assert "WITHOUT ROWID" in str(await connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'usage'")))
    await database.close()


async def test_a_new_store_has_the_indexes_that_migrations_make(bare_location: str) -> None:
    """With their conditions, which the comparison above does not see."""
    sql = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    if "://" not in bare_location:
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    assert await try_to_open(bare_location) == "open"
    created = sorted(query(bare_location, sql))

    def drop(connection: Connection) -> None:
        metadata.drop_all(connection)
        VERSION.drop(connection)

    database = Database(bare_location)
    await database.write(drop)
    await database.close()
    await migrate(bare_location, HEAD)

    assert created == sorted(query(bare_location, sql))
    assert sum(" WHERE " in definition for _, definition in created) == len(PARTIAL_INDEXES)


async def test_an_old_store_is_brought_up_to_date_and_keeps_its_rows(bare_location: str) -> None:
    await migrate(bare_location, "0001")
    row = "(60, 'team-a', 'gpt-6-sol', 'openai', 'gpt-6-sol-2026', 'answered', 3, 30, 12, NULL, 0, 0.75, 0)"
    with OutsideConnection(bare_location) as beside:
        beside.execute(f"INSERT INTO usage VALUES {row}")

    for _ in range(2):
        async with open_store(bare_location, usage_days=0) as store:
            assert store
            (total,) = await store.usage.report(ALWAYS)
            assert total.totals == UsageTotals(3, 30, 12, None, 0, 0.75, 0)

    assert query(bare_location, "SELECT version_num FROM alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("version", NUMBERS[:-1])
async def test_every_older_version_is_brought_up_to_date(version: str, bare_location: str) -> None:
    await migrate(bare_location, version)

    assert await try_to_open(bare_location) == "open"
    assert query(bare_location, "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_the_newest_migration_is_the_one_that_upgrade_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD] == NUMBERS[-1:]


async def test_opening_waits_for_a_database_that_is_locked_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    async with asyncio.TaskGroup() as group:
        opening = group.create_task(try_to_open(str(path)))
        await asyncio.sleep(0.5)
        assert not opening.done()
        holder.execute("COMMIT")
    holder.close()

    assert opening.result() == "open"


async def try_to_open(location: str) -> str:
    async with open_store(location):
        return "open"


async def test_opening_waits_for_another_process_that_changes_the_tables(postgres_server: Postgres) -> None:
    """Longer than one wait for a lock takes."""
    location = await postgres_server.create(template="template1")
    with OutsideConnection(location) as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(hashtext('fanout schema'))")
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(try_to_open(location))
            await asyncio.sleep(LOCK_TIMEOUT_MS / 1e3 + 0.5)
            assert not opening.done()
            other.release()

    assert opening.result() == "open"


async def test_a_migration_may_take_longer_than_other_statements(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a lock here, as another would for a large table."""
    monkeypatch.setattr(connections, "STATEMENT_TIMEOUT_S", 0.6)  # a constant, no piece of the code
    location = await postgres_server.create(template="template1")
    with OutsideConnection(location) as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(hashtext('fanout schema'))")
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(try_to_open(location))
            await asyncio.sleep(1.2)
            other.release()

    assert opening.result() == "open"


async def test_processes_that_open_a_new_database_at_the_same_time_all_succeed(bare_location: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from fanout.store.opening import open_store\n"
        "from tests.support.builders.outcomes import make_answer\n"
        "async def main():\n"
        "    async with open_store(sys.argv[1]) as store:\n"
        "        store.usage.observe(make_answer())\n"
        "asyncio.run(main())\n"
    )

    ended = await asyncio.gather(*(run_command([sys.executable, "-c", program, bare_location]) for _ in range(4)))

    assert [(one.code, one.err) for one in ended] == [(0, "")] * 4
    assert query(bare_location, "SELECT sum(calls), count(DISTINCT model) FROM usage") == [(4, 1)]


async def test_serve_reports_an_unusable_store_in_one_sentence() -> None:
    ended = await run_fanout("serve", "--port", "0", FANOUT_STORE="/dev/null/fanout.db")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(
        "fanout: environment: FANOUT_STORE: `/dev/null/fanout.db` cannot be used: Not a directory; allowed: "
    )
