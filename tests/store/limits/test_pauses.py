"""A 429 that one process meets holds all that share the store, whether their account has limits or not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.config.providers_file import LimitsRow
from fanout.limits.shared.messages import SharedPause
from fanout.store.limits import pauses, sharing
from fanout.store.limits.limit_table import PAUSES_CHANNEL, MetPause, met_pause_json
from fanout.store.limits.pauses import LOOK_S, LOOK_WHERE_HEARD_S
from tests.support.builders.dispatcher import ObservedDispatcher
from tests.support.builders.settings import write_providers_file
from tests.support.builders.sharing import find_limits_location, find_shared, open_processes
from tests.support.cli import start_server
from tests.support.databases import OutsideConnection
from tests.support.postgres import Postgres
from tests.support.upstream.server import Upstream

BUSY_ONCE = "429-s-30-then-ok"
"""A model that would answer every call after the first."""
ONCE: Mapping[str, Any] = {"retries": {"attempts": 1}}
CONNECTIONS = 12
"""To the processes of a server: all but one in 2,048 times they are not all to the same."""


def bound_s(location: str) -> float:
    """Return the time after which the others must know of a pause, far above what was measured: 10 ms, and LOOK_S."""
    return 0.5 if location.startswith("postgresql") else LOOK_S + 0.25


async def call_until(process: ObservedDispatcher, end_s: float, model: str) -> None:
    """Call a model again and again, as long as nothing holds it for longer than a call may wait."""
    while time.monotonic() < end_s:
        await process.run(f"up/{model}", deadline_s=0.1)
        await asyncio.sleep(0.01)


async def wait_for_pause(process: ObservedDispatcher, model: str | None = BUSY_ONCE) -> float:
    """Wait until a process holds a model; return how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        while not any(hold.model == model for hold in process.find_limiter().list_holds()):
            await asyncio.sleep(0.001)
    return time.monotonic() - began


async def wait_until_idle(process: ObservedDispatcher) -> None:
    """Wait until a process looks for nothing any more."""
    share = process.find_limiter().share
    assert share
    async with asyncio.timeout(30):
        while share.is_informed:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 5_000}], ids=["without limits", "with limits"])
async def test_nothing_is_sent_by_others_once_one_process_has_met_a_429(
    location: str, upstream: Upstream, tmp_path: Path, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOOK_WHERE_HEARD_S", 30.0)  # else what was not announced would soon be found
    async with open_processes(location, upstream, tmp_path, **ONCE, **limits) as (first, *others):
        working = [asyncio.create_task(call_until(other, math.inf, "ok")) for other in others]
        await upstream.wait_for_requests(10)
        await first.run(f"up/{BUSY_ONCE}")
        met_s = time.monotonic()
        await asyncio.gather(*(call_until(other, met_s + 1.0, BUSY_ONCE) for other in others))
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    late = [round(one.arrived_s - met_s, 3) for one in upstream.requests_for(BUSY_ONCE) if one.arrived_s > met_s]
    assert [delay_s for delay_s in late if delay_s > bound_s(location)] == []
    # Another model's calls went on.
    assert max(one.arrived_s for one in upstream.requests_for("ok")) > met_s + bound_s(location)


async def test_a_pause_of_a_whole_account_holds_every_model(location: str, upstream: Upstream, tmp_path: Path) -> None:
    async with open_processes(location, upstream, tmp_path) as (first, other, _):
        await asyncio.gather(first.run("up/ok"), other.run("up/ok"))
        first.find_limiter().pause(None, 30, "account_busy")
        await wait_for_pause(other, None)
        (hold,) = other.find_limiter().list_holds()
    assert hold.reason == "account_busy"
    assert 29 < hold.seconds <= 30


async def test_one_that_begins_later_or_anew_learns_of_a_pause_with_its_first_call(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path, **ONCE) as (first, idle, late):
        await asyncio.gather(first.run("up/ok"), idle.run("up/ok"))
        await wait_until_idle(idle)
        await first.run(f"up/{BUSY_ONCE}")
        await wait_for_pause(first)
        # On PostgreSQL one that has called before has heard of it already.
        for process in (idle, late):
            await process.run("up/ok")
            await wait_for_pause(process)
            await call_until(process, time.monotonic() + 0.3, BUSY_ONCE)
    assert len(upstream.requests_for(BUSY_ONCE)) == 1


async def test_looks_are_few_while_calls_are_made_and_none_while_there_are_none(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    look_s = LOOK_WHERE_HEARD_S if location.startswith("postgresql") else LOOK_S
    async with open_processes(location, upstream, tmp_path) as (process, *_):
        limits, began = find_shared(process), time.monotonic()
        await call_until(process, began + 2.0, "ok")
        assert 2 <= limits.pauses.exchanges <= 1 + (time.monotonic() - began) / look_s
        await wait_until_idle(process)
        before = limits.pauses.exchanges
        await asyncio.sleep(2.5 * look_s)
        assert limits.pauses.exchanges == before
        assert limits.asks == 0


async def test_a_pause_that_becomes_longer_with_each_answer_is_written_four_times_a_second(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path) as (first, other, _):
        await asyncio.gather(first.run("up/ok"), other.run("up/ok"))
        await wait_until_idle(first)
        before, began = find_shared(first).pauses.exchanges, time.monotonic()
        for number in range(100):
            first.find_limiter().pause("m", 20 + number / 10)
            await asyncio.sleep(0.01)
        assert find_shared(first).pauses.exchanges - before <= 1 + (time.monotonic() - began) / LOOK_S
        async with asyncio.timeout(5):  # the last of them is not lost
            while not any(hold.seconds > 28 for hold in other.find_limiter().list_holds()):
                await other.run("up/ok")


async def test_an_account_that_gets_limits_asks_instead_of_looking_and_looks_again_without_them(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path) as (process, *_):
        await process.run("up/ok")
        limiter, exchange, none = process.find_limiter(), find_shared(process).pauses, process.find_limiter().limits
        for limits, is_watched in ((LimitsRow(requests_per_minute=600), False), (none, True)):
            limiter.configure(limits)
            async with asyncio.timeout(5):
                while bool(exchange._watched) is not is_watched:
                    await process.run("up/ok")
                    await asyncio.sleep(0.02)


async def test_of_more_accounts_than_are_looked_for_calls_are_made_all_the_same(
    location: str, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "MAX_WATCHED", 0)
    async with open_processes(location, upstream, tmp_path) as (process, *_):
        await process.run("up/ok")
        assert find_shared(process).pauses.exchanges == 0
        monkeypatch.undo()
        await process.run("up/ok")
        async with asyncio.timeout(5):
            while not find_shared(process).pauses.exchanges:
                await asyncio.sleep(0.01)
    assert len(upstream.requests_for("ok")) == 2


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_an_announcement_that_is_lost_is_made_up_by_the_next_look(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path, **ONCE) as (first, other, _):
        working = asyncio.create_task(call_until(other, time.monotonic() + 5.0, "ok"))
        await upstream.wait_for_requests(5)
        with OutsideConnection(location) as outside:
            cut = outside.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        assert cut
        await first.run(f"up/{BUSY_ONCE}")
        # Nothing else could bring it: a connection that is made again hears nothing of what was announced before.
        assert await wait_for_pause(other) <= LOOK_WHERE_HEARD_S + 3.0
        await working


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
async def test_what_others_announce_is_read_with_care(location: str, upstream: Upstream, tmp_path: Path) -> None:
    async with open_processes(location, upstream, tmp_path) as (process, *_):
        await process.run("up/ok")
        limits = find_shared(process)
        own, strange = (MetPause("up\n\n", SharedPause(name, 30, "busy"), name) for name in (limits.member, "strange"))
        with OutsideConnection(location) as outside:
            for text in ("", "[1]", *(met_pause_json().dump_json(one).decode() for one in (own, strange))):
                outside.execute(f"SELECT pg_notify('{PAUSES_CHANNEL}', '{text}')")
        await wait_for_pause(process, "strange")
        assert [hold.model for hold in process.find_limiter().list_holds()] == ["strange"]


async def test_a_pause_that_is_met_while_the_store_is_away_is_told_when_it_is_back(
    restartable_postgres: Postgres, upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    location = await restartable_postgres.create()
    async with open_processes(location, upstream, tmp_path, **ONCE) as (first, other, _):
        await asyncio.gather(first.run("up/ok"), other.run("up/ok"))
        await asyncio.to_thread(restartable_postgres.stop)
        await first.run(f"up/{BUSY_ONCE}")
        await asyncio.sleep(3.5)
        await asyncio.to_thread(restartable_postgres.start)
        async with asyncio.timeout(20):
            while not other.find_limiter().snapshot().paused_models:
                await other.run("up/ok")
                await asyncio.sleep(0.05)
    events = "".join(log_lines)
    assert events.count("limits.store_lost") >= 1
    assert events.count("limits.store_lost") == events.count("limits.store_found")


async def test_rows_that_nobody_has_written_for_long_are_deleted_once_in_a_while(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path) as (process, *_):
        await process.run("up/ok")
        with OutsideConnection(find_limits_location(location)) as outside:
            outside.execute("INSERT INTO shared_limits (account, written, state) VALUES ('gone', -1e6, '')")
            find_shared(process).pauses._cleaned_at = -math.inf
            process.find_limiter().pause("m", 30)
            async with asyncio.timeout(5):
                while [row[0] for row in outside.execute("SELECT account FROM shared_limits")] != ["up\n\n"]:
                    await asyncio.sleep(0.01)


async def test_a_429_holds_all_processes_of_real_servers(location: str, upstream: Upstream, tmp_path: Path) -> None:
    """Two servers on PostgreSQL, or one of two processes on a file."""
    config = write_providers_file(upstream.url, tmp_path, **ONCE)
    workers = "1" if location.startswith("postgresql") else "2"
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(start_server(config, FANOUT_STORE=location, FANOUT_WORKERS=workers))
            for _ in range(3 - int(workers))
        ]
        sessions = [
            await stack.enter_async_context(aiohttp.ClientSession(servers[number % len(servers)].url))
            for number in range(CONNECTIONS)
        ]

        async def ask(session: aiohttp.ClientSession, model: str) -> int:
            body = {"prompt": "hi", "model": f"up/{model}", "timeout_s": 1}
            async with session.post("/v1/completion", json=body) as response:
                await response.read()
                return response.status

        assert {await ask(session, "ok") for session in sessions} == {200}
        assert await ask(sessions[0], BUSY_ONCE) != 200
        await asyncio.sleep(bound_s(location))
        assert 200 not in await asyncio.gather(*(ask(session, BUSY_ONCE) for session in sessions))
    assert len(upstream.requests_for(BUSY_ONCE)) == 1
