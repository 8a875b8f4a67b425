"""A network to PostgreSQL that falls silent without a word: whatever waits for it ends, and goes on once it speaks again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from fanout.core.errors import StoreClosedError, StoreError
from fanout.store.engine import connections, database
from fanout.store.opening import open_store
from fanout.store.usage import UsageFilter
from tests.support.builders.settings import write_providers_file
from tests.support.cli import start_fanout, start_server
from tests.support.postgres import Postgres
from tests.support.silent_network import SilentNetwork, open_silent_network
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

ALL = UsageFilter(0, 2**40)


@pytest.fixture
async def network(postgres_server: Postgres) -> AsyncGenerator[SilentNetwork]:
    async with open_silent_network(postgres_server.port) as opened:
        yield opened


@pytest.fixture
async def location(postgres_server: Postgres, network: SilentNetwork) -> AsyncGenerator[str]:
    created = await postgres_server.create()
    yield created.replace(f":{postgres_server.port}/", f":{network.port}/")
    network.is_silent = False
    await postgres_server.drop(created)


@timed
async def test_reads_and_writes_fail_in_time_and_recover(
    network: SilentNetwork, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are connections, twice; idle connections are found out, too."""
    for name, seconds in {"STATEMENT": 0.5, "CONNECT": 0.5, "POOL": 1.0}.items():
        monkeypatch.setattr(connections, f"{name}_TIMEOUT_S", seconds)  # constants, no pieces of the code
    async with open_store(location) as store:
        assert store
        assert await store.usage.report(ALL) == []
        network.is_silent = True
        for _ in range(2):
            began = time.monotonic()
            reads = [store.database.fetch_all(UsageFilter(0, 1).select()) for _ in range(9)]
            found = await asyncio.gather(store.usage.report(ALL), *reads, return_exceptions=True)
            assert time.monotonic() - began < 6
            assert {type(result) for result in found} == {StoreError}
            assert {str(result) for result in found} <= {"it did not answer in time", "all of its connections are busy"}
        network.is_silent = False
        assert await store.usage.report(ALL) == []


@timed
async def test_closing_has_a_bound(network: SilentNetwork, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work under way is given up, and says so."""
    monkeypatch.setattr(database.Database.give_up_after, "__defaults__", (0.5,))
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT_S", 1.0)
    async with open_store(location) as store:
        assert store
        network.is_silent = True
        reading = asyncio.create_task(store.usage.report(ALL))
        await asyncio.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    with pytest.raises(StoreClosedError):
        await reading
    with pytest.raises(StoreClosedError):
        await store.usage.report(ALL)


@timed
async def test_a_server_answers_503_and_stops(
    upstream: Upstream, tmp_path: Path, network: SilentNetwork, location: str
) -> None:
    """Every read, at once; SIGTERM with a grace period of a second ends it, although a job runs."""
    config = write_providers_file(upstream.url, tmp_path)
    async with start_server(config, FANOUT_STORE=location, FANOUT_GRACE_S="1") as server:
        async with aiohttp.ClientSession(server.url) as session:
            job = {"models": ["up/sleep-0.1"], "items": [{"prompt": f"{number}"} for number in range(1_000)], "concurrency": 2}
            async with session.post("/v1/jobs", json=job) as response:
                assert response.ok, await response.text()
                job_id = (await response.json())["id"]
            await upstream.wait_for_requests(3, 20)
            network.is_silent = True
            began = time.monotonic()
            paths = ("/v1/usage", "/v1/jobs", f"/v1/jobs/{job_id}", "/v1/comparisons", "/v1/files", "/v1/batches")

            async def read(path: str) -> tuple[int, str]:
                async with session.get(path) as response:
                    return response.status, (await response.json())["error"]["code"]

            answers = await asyncio.gather(*map(read, paths))
            assert time.monotonic() - began < 2 * connections.STATEMENT_TIMEOUT_S + connections.POOL_TIMEOUT_S
            assert set(answers) == {(503, "store_unavailable")}
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 1 + 2 + database.CLOSE_TIMEOUT_S + connections.CONNECT_TIMEOUT_S + 3
        assert location.rpartition("@")[0].rpartition(":")[2] not in server.read_log()


@timed
async def test_a_batch_ends_soon_after_its_grace_period(
    upstream: Upstream, tmp_path: Path, network: SilentNetwork, location: str
) -> None:
    """It says how to continue; and so it can be, once the network speaks again."""
    config = write_providers_file(upstream.url, tmp_path)
    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(500)))
    arguments = ("batch", "run", str(rows), "-m", "up/sleep-0.05", "--concurrency", "2", "--config", str(config))
    async with start_fanout(*arguments, FANOUT_STORE=location, FANOUT_GRACE_S="0.2") as process:
        await upstream.wait_for_requests(3, 20)
        network.is_silent = True
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        took_s = time.monotonic() - began
    text = out.decode()
    assert took_s < database.CLOSE_TIMEOUT_S + connections.CONNECT_TIMEOUT_S + 5, text
    assert process.returncode == 3, text
    assert "to continue: fanout batch resume" in text
    assert "geheim" not in text
