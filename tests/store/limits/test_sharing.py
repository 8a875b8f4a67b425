"""Processes that share limits: each a store and a dispatcher of its own, before one upstream that counts what arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.core.schema import Completion
from fanout.store.opening import MEMORY, open_store
from tests.support.builders.dispatcher import expect_failure
from tests.support.builders.sharing import PROCESSES, find_limits_location, find_shared, open_processes
from tests.support.databases import query
from tests.support.upstream.server import Upstream


def list_states(location: str) -> list[str]:
    return [state for (state,) in query(find_limits_location(location), "SELECT state FROM shared_limits")]


async def test_starts_of_all_processes_together_reach_the_limit_and_never_exceed_it(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path, requests_per_minute=31) as processes:
        outcomes = await asyncio.gather(*(process.run(*["up/ok"] * 20, deadline_s=1.0) for process in processes))
        answered = [sum(isinstance(one.result, Completion) for one in some) for some in outcomes]
        assert (sum(answered), len(upstream.requests_for("ok"))) == (31, 31)
        refused = [one for some in outcomes for one in some if not isinstance(one.result, Completion)]
        assert {expect_failure(one).kind for one in refused} == {"rate_limit"}
        members = {process.find_limiter().snapshot().processes for process in processes}
        assert max(filter(None, members)) == PROCESSES
    (state,) = list_states(location)  # what was used counts on
    assert '"members":{}' in state
    async with open_processes(location, upstream, tmp_path, requests_per_minute=31) as processes:
        (outcome,) = await processes[0].run("up/ok", deadline_s=1.0)
    assert expect_failure(outcome).code == "queue_too_long"


async def test_calls_in_flight_of_all_processes_stay_within_the_limit(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, upstream.in_flight)
            await asyncio.sleep(0.002)

    async with open_processes(location, upstream, tmp_path, concurrency=3) as processes:
        watching = asyncio.create_task(watch())
        outcomes = await asyncio.gather(*(process.run(*["up/sleep-0.02"] * 8, deadline_s=20.0) for process in processes))
        watching.cancel()
    assert all(isinstance(one.result, Completion) for some in outcomes for one in some)
    assert most == 3


async def test_an_account_without_limits_and_a_store_of_one_process_need_no_row(upstream: Upstream, tmp_path: Path) -> None:
    location = str(tmp_path / "fanout.db")
    async with open_processes(location, upstream, tmp_path) as processes:
        await processes[0].run("up/ok")
    async with open_store(location, shares_limits=None) as store, open_store(MEMORY, shares_limits=True) as memory:
        assert store
        assert memory
        assert (store.limits, memory.limits) == (None, None)
    assert list_states(location) == []


async def test_an_account_that_is_used_no_longer_is_left_also_while_an_ask_is_on_its_way(
    location: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with open_processes(location, upstream, tmp_path, concurrency=3) as (process, *_):
        await process.run("up/ok")
        share, limits = process.find_limiter().share, find_shared(process)
        assert share
        asker = limits._askers[share]
        share.wake()
        while asker.task is None:
            await asyncio.sleep(0)
        limits.leave(share)
        while asker.task:
            await asyncio.sleep(0.01)
        assert not share.is_member
        assert not limits._leaving
