"""The place of a process among those that share its store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic_core import from_json
from sqlalchemy import text, update

from fanout.jobs import presence as presence_module
from fanout.jobs.activity import ActivityJson
from fanout.jobs.presence import Presence, is_lost
from fanout.store.opening import Store, open_store
from fanout.store.processes import KEPT_S, LOST_S, ProcessRow
from fanout.store.shared_tables import processes

IDLE: ActivityJson = {"jobs": [], "calls_in_flight": 0, "calls_waiting": 0, "calls_per_second": {}}


@pytest.fixture
async def store(location: str) -> AsyncIterator[Store]:
    async with open_store(location) as opened:
        assert opened
        yield opened


@pytest.fixture(autouse=True)
def fast_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant, not a piece of the code."""
    monkeypatch.setattr(presence_module, "BEAT_INTERVAL_S", 0.01)


def make_presence(store: Store, describe: Callable[[], ActivityJson] = lambda: IDLE, **options: Any) -> Presence:
    return Presence(store.processes, "worker", "1.2.3", lambda: ["up"], describe, **options)


async def list_processes(store: Store) -> list[ProcessRow]:
    return await store.processes.list_processes()


async def wait_for(store: Store, condition: Callable[[ProcessRow], bool]) -> ProcessRow:
    """Return the only process once the condition holds."""
    async with asyncio.timeout(10):
        while not (found := await list_processes(store)) or not condition(found[0]):
            await asyncio.sleep(0.005)
    (row,) = found
    return row


async def test_a_process_is_listed_while_it_runs_with_what_it_does(store: Store) -> None:
    calls = iter(range(1, 1_000_000))
    presence = make_presence(store, lambda: {**IDLE, "calls_in_flight": next(calls)})
    async with presence.running():
        first = await wait_for(store, lambda _: True)
        second = await wait_for(store, lambda row: row.activity != first.activity)
        presence.drain()
        last = await wait_for(store, lambda row: row.state == "draining")

    assert (first.kind, first.pid, first.version, first.accounts, first.state) == (
        "worker",
        os.getpid(),
        "1.2.3",
        '["up"]',
        "working",
    )
    assert from_json(first.activity)["calls_in_flight"] < from_json(second.activity)["calls_in_flight"]
    assert first.started == second.started == last.started <= first.seen < second.seen < last.seen
    assert not is_lost(last)
    assert await list_processes(store) == [], "one that ends leaves nothing behind"


async def test_a_process_that_is_not_heard_of_is_lost_and_later_forgotten(store: Store) -> None:
    registry, row = store.processes, make_presence(store).row
    for name, ago_s in (("elsewhere|another machine|1|1", LOST_S + 1), ("elsewhere|another machine|2|2", KEPT_S + 1)):
        await registry.record(row._replace(id=name))
        moved = update(processes).where(processes.c.id == name).values(seen=processes.c.seen - ago_s)
        await store.database.execute(moved)
    await registry.record(row)
    found = {row.id: is_lost(row) for row in await list_processes(store)}
    await registry.sweep()

    assert found == {"elsewhere|another machine|1|1": True, "elsewhere|another machine|2|2": True, row.id: False}
    assert {row.id for row in await list_processes(store)} == {"elsewhere|another machine|1|1", row.id}


async def test_a_killed_process_of_this_machine_is_lost_at_once(store: Store) -> None:
    row = make_presence(store).row
    host, machine, _, _ = row.id.rsplit("|", 3)
    await store.processes.record(row._replace(id=f"{host}|{machine}|{2**22 - 3}|1"))

    assert [is_lost(row) for row in await list_processes(store)] == [True]


async def test_a_registry_that_cannot_be_written_is_logged_once_and_holds_nothing_up(
    store: Store, log_lines: list[str]
) -> None:
    async with store.database.write_transaction() as connection:
        await connection.execute(text("ALTER TABLE processes RENAME TO away"))
    async with make_presence(store).running():
        async with asyncio.timeout(10):
            while not log_lines:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # several beats
        async with store.database.write_transaction() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO processes"))
        await wait_for(store, lambda _: True)

    events = [from_json(line)["event"] for line in log_lines]
    assert events == ["process.beat_failed", "process.beat_recovered"]
