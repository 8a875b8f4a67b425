"""Keys in the store, on SQLite and PostgreSQL: secrets that cannot be read back, and the record of every change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from fanout.core.errors import StoreError
from fanout.store.engine.upgrade import MIGRATIONS
from fanout.store.files import FileStore
from fanout.store.jobs.job_store import JobStore
from fanout.store.keys import key_store
from fanout.store.keys.counts import KeyCountStore, KeyUse, UseCount
from fanout.store.keys.key_store import KeyRow
from fanout.store.keys.secrets import is_secret_of, make_secret, split_key
from fanout.store.opening import Store, open_store


def make_key(id_: str = "key_1", **changes: Any) -> KeyRow:
    return KeyRow(id_, time.time(), "local", "ci", "team", "user", "{}", None, None)._replace(**changes)


async def add(store: Store, key: KeyRow) -> str:
    secret, row = make_secret(key.id, time.time())
    assert await store.keys.create(key, row, {"role": key.role})
    return secret


async def test_a_key_is_known_by_its_secret_which_the_database_does_not_hold(location: str) -> None:
    async with open_store(location) as store:
        assert store
        secret = await add(store, make_key())
        ((row, key),) = await store.keys.list_good(time.time())

    prefix, rest = split_key(secret) or ("", "")
    assert (row.prefix, key.id) == (prefix, "key_1")
    assert is_secret_of(row, rest)
    assert not is_secret_of(row, rest[:-1])
    assert not is_secret_of(None, rest)
    assert rest.encode() not in row.salt + row.digest


async def test_a_rotated_key_has_both_secrets_for_a_while_and_a_revoked_one_has_none(location: str) -> None:
    async with open_store(location) as store:
        assert store
        await add(store, make_key())
        _, second = make_secret("key_1", now := time.time())
        assert await store.keys.rotate(second, 60, "local")
        assert len(await store.keys.list_good(now + 30)) == 2
        assert [row.prefix for row, _ in await store.keys.list_good(now + 61)] == [second.prefix]
        _, third = make_secret("key_1", time.time())
        assert await store.keys.rotate(third, 0, "local")
        assert [row.prefix for row, _ in await store.keys.list_good(time.time())] == [third.prefix]
        assert await store.keys.revoke("key_1", "local")
        assert not await store.keys.revoke("key_1", "local")
        assert not await store.keys.rotate(third, 0, "local")
        assert await store.keys.list_good(time.time()) == []
        events = [row.event for row in await store.audit.list_changes(limit=9)]

    assert events == ["key.revoked", "key.rotated", "key.rotated", "key.created"]


async def test_no_more_keys_are_good_at_once_than_a_server_can_hold(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_store, "MAX_KEYS", 1)
    async with open_store(location) as store:
        assert store
        await add(store, make_key())
        assert not await store.keys.create(make_key("key_2"), make_secret("key_2", 1.0)[1], {})
        assert len(await store.audit.list_changes(limit=9)) == 1
        await store.keys.revoke("key_1", "local")
        await add(store, make_key("key_2"))


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
async def test_the_database_refuses_to_change_the_record_of_changes(location: str, statement: str) -> None:
    async with open_store(location) as store:
        assert store
        await store.audit.record("configuration.reloaded", "signal", "providers.json", {"models": 3})
        with pytest.raises(StoreError, match="never changed"):
            await store.database.execute(text(statement))
        ((number, _, *change),) = await store.audit.list_changes(limit=9)

        assert change == ["configuration.reloaded", "signal", "providers.json", '{"models":3}']
        assert await store.audit.find_newest() == number


async def test_what_keys_have_used_is_added_up_by_all_who_write_it(location: str) -> None:
    async with open_store(location) as store:
        assert store
        counts = KeyCountStore(store.database)
        use = KeyUse({7: UseCount(1, 10)}, {99: UseCount(1, 10, 0.5), 100: UseCount(2, 20, 0.25)})
        await counts.add({"key_1": use, "key_2": KeyUse({}, {100: UseCount(5, 5, 5.0)})}, 100, 7)
        found = await counts.add({"key_1": KeyUse({8: UseCount(3, 1)}, {100: UseCount(1, 1, 1.0)})}, 100, 8)
        later = await counts.add({"key_1": KeyUse({9: UseCount(1, 1)}, {})}, 101, 9)
        read = await counts.read(["key_2", "key_3"], 100)
        room = await FileStore(store.database).measure_account("team"), await JobStore(store.database).measure_account("team")

    assert found == {
        "key_1": KeyUse({7: UseCount(1, 10), 8: UseCount(3, 1)}, {100: UseCount(3, 21, 1.25)}, UseCount(1, 10, 0.5))
    }
    assert later["key_1"] == KeyUse({8: UseCount(3, 1), 9: UseCount(1, 1)}, {}, UseCount(4, 31, 1.75))
    assert read == {"key_2": KeyUse({}, {100: UseCount(5, 5, 5.0)}), "key_3": KeyUse()}
    assert room == ((0, 0), (0, 0))


@pytest.mark.parametrize("version", ["new", "0011"])
async def test_a_row_of_the_record_of_changes_is_not_replaced_either(tmp_path: Path, version: str) -> None:
    """In SQLite, `REPLACE` deletes rows without a trigger's knowledge."""
    path = str(tmp_path / "fanout.db")
    if version != "new":
        with create_engine(f"sqlite:///{path}").begin() as connection:
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS))
            command.upgrade(config, version)
    async with open_store(path) as store:
        assert store
        await store.audit.record("configuration.reloaded", "signal", "providers.json", {"models": 3})
        with pytest.raises(StoreError, match="never changed"):
            await store.database.execute(text("REPLACE INTO audit SELECT * FROM audit"))
        await store.audit.record("configuration.reloaded", "signal", "providers.json", {"models": 4})
