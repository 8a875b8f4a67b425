"""What other processes announce on PostgreSQL is heard, also once the connection was lost."""

from __future__ import annotations

import asyncio

import pytest

from fanout.store.engine import listener
from fanout.store.opening import open_store
from tests.support.databases import OutsideConnection


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_announcements_are_heard_also_after_the_connection_was_lost(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "RETRY_INTERVAL_S", 0.01)
    heard: list[str] = []
    async with open_store(location) as store:
        assert store
        async with store.database.listener.hearing("tests", heard.append):
            with OutsideConnection(location) as other:
                await announce_until_heard(other, heard, "first")
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                await announce_until_heard(other, heard, "second")
    assert heard[0] == "first"
    assert heard[-1] == "second"


async def announce_until_heard(other: OutsideConnection, heard: list[str], text: str) -> None:
    async with asyncio.timeout(20):
        while text not in heard:
            other.execute(f"NOTIFY tests, '{text}'")
            await asyncio.sleep(0.01)
