"""Faults of the published benchmarks of queues on PostgreSQL, and three more: a network cut or halved, a worker that slept.

Source of the published ones: hardbyte/postgresql-job-queue-benchmarking (phases of docs/method.md) and NikolayS/pgque
(bench/xmin-horizon), with shorter phases.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from units import LEASE_S

if TYPE_CHECKING:
    from bake_off import Run

POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    disturb: Callable[[Run], Awaitable[None]]
    step_s: float = 0.1
    """0: as fast as it can, and the rate is that of the database; else a chunk takes ten steps, and all are waited for."""
    chunks: int = 700
    through_network: int = 0
    """Workers behind the proxy."""
    has_late_ends: bool = False
    """Some carriers of chunks find out late that others have them."""


async def do_nothing(run: Run) -> None:
    """Measure what nothing disturbs."""


async def measure(run: Run) -> None:
    """Measure the rate for ten seconds."""
    await asyncio.sleep(2)
    run.rate = await run.fleet.rate(10)


async def kill_again_and_again(run: Run) -> None:
    for _ in range(20):
        await asyncio.sleep(0.7)
        run.fleet.kill(random.randrange(len(run.fleet.children)))


async def restart_postgres(run: Run) -> None:
    for _ in range(2):
        await asyncio.sleep(4)
        run.cluster.stop()
        await asyncio.sleep(3)
        await asyncio.to_thread(run.cluster.start)


async def kill_backends(run: Run) -> None:
    """End the statements under way, twice a second."""
    sql = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND (state IN ('active', 'idle in transaction') OR random() < 0.1)"
    )
    for _ in range(24):
        await asyncio.sleep(0.5)
        with suppress(*POSTGRES_ERRORS):
            await run.query(sql)


async def exhaust_connections(run: Run) -> None:
    """Take every connection that is left, for ten seconds."""
    await asyncio.sleep(2)
    taken: list[Any] = []
    with suppress(*POSTGRES_ERRORS):
        while True:
            taken.append(await asyncpg.connect(run.url))
    run.fleet.kill(0)  # one that starts now finds none
    await asyncio.sleep(10)
    for connection in taken:
        await connection.close()


async def hold_transaction(run: Run) -> None:
    """Keep vacuum from removing any version of a row for thirty seconds; compare the last five with the first."""
    holder = await asyncpg.connect(run.url)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.execute("SELECT txid_current()")
    await asyncio.sleep(1)
    first = await run.fleet.rate(5)
    await asyncio.sleep(20)
    run.rate = await run.fleet.rate(5)
    dead = await run.query(f"SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = '{run.fleet.engine.table}'")
    run.note = f"first 5 s {first:,.0f}/s; {dead[0][0]:,} dead rows"
    await holder.close()


async def read_beside(run: Run) -> None:
    """Count the queue's table in four overlapping transactions, again and again."""

    async def read() -> None:
        connection = await asyncpg.connect(run.url)
        try:
            while True:
                async with connection.transaction(isolation="repeatable_read"):
                    await connection.fetch(f"SELECT count(*) FROM {run.fleet.engine.table}")
                    await asyncio.sleep(0.1)
        finally:
            connection.terminate()

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await measure(run)
    for reader in readers:
        reader.cancel()


async def press(run: Run) -> None:
    """Plan 1.5 times what is carried, all the time."""

    async def produce() -> None:
        while True:
            before = run.fleet.reports.ended
            await asyncio.sleep(0.25)
            await run.plan(max(50, int(1.5 * (run.fleet.reports.ended - before))))

    producer = asyncio.create_task(produce())
    await measure(run)
    producer.cancel()
    run.note = f"backlog {run.planned - run.fleet.reports.ended:,} chunks"


async def cut_network(run: Run) -> None:
    """Cut two of four workers off for twice their lease."""
    await asyncio.sleep(3)
    run.network.is_cut = True
    await asyncio.sleep(2 * LEASE_S)
    run.network.is_cut = False


async def reset_connections(run: Run) -> None:
    """Break all connections off, twice a second: some statements are executed whose answer is lost."""
    for _ in range(24):
        await asyncio.sleep(0.4 + random.random() * 0.2)
        run.network.reset()


async def halve_network(run: Run) -> None:
    """Give the workers half of the bytes a second that they used before."""
    await asyncio.sleep(2)
    before = max(run.network.passed_bytes)
    whole = await run.fleet.rate(6)
    run.network.bytes_per_s = (max(run.network.passed_bytes) - before) / 6 / 2
    await asyncio.sleep(2)
    run.rate = await run.fleet.rate(8)
    run.network.bytes_per_s = None
    run.note = f"whole {whole:,.0f}/s"


async def sleep_through_leases(run: Run) -> None:
    """Let two workers sleep for longer than their lease; as they wake, kill those who have taken their chunks."""
    for _ in range(3):
        await asyncio.sleep(1.5)
        for place in (0, 1):
            run.fleet.signal(place, signal.SIGSTOP)
        await asyncio.sleep(LEASE_S + 2.5)
        for place in (0, 1):
            run.fleet.signal(place, signal.SIGCONT)
        await asyncio.sleep(0.3)
        for place in (2, 3):
            run.fleet.kill(place)


FAST = 40_000
SCENARIOS = (
    Scenario("normal, as fast as it can", measure, 0, FAST),
    Scenario("normal, chunks of 1 s", do_nothing),
    Scenario("repeated kill -9 (20)", kill_again_and_again, has_late_ends=True),
    Scenario("PostgreSQL restarted (2 × 3 s away)", restart_postgres),
    Scenario("connections killed (twice a second)", kill_backends),
    Scenario("connections exhausted (10 s)", exhaust_connections),
    Scenario("slept through leases, takers killed", sleep_through_leases, has_late_ends=True),
    Scenario("network cut (10 s, two of four)", cut_network, through_network=2, has_late_ends=True),
    Scenario("network resets (twice a second)", reset_connections, through_network=4, has_late_ends=True),
    Scenario("long transaction held (30 s)", hold_transaction, 0, 2 * FAST),
    Scenario("readers beside (4)", read_beside, 0, FAST),
    Scenario("sustained pressure (1.5 ×)", press, 0, 2_000),
    Scenario("network halved", halve_network, 0, FAST, through_network=4),
)
