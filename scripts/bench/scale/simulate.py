"""Up to 200 workers and 50 accounts on one PostgreSQL: a simulation with the costs that this machine has.

usage: simulate.py [--cores N] [--per-account N] [--costs FILE]

The costs are measured first, with Fanout's own code on a PostgreSQL of this machine: an ask for a slice of an account by the
number of processes that share it, and a unit of a job with its share of claims and renewals. `--costs` keeps them in a file and
uses those that are there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from queueing import Process, Simulation
from rig import Rig, open_rig

from fanout.limits.shared.rules import MAX_ASKS_PER_S, SharedRules
from fanout.limits.shared.share import Backlog, ProcessShare
from fanout.store.engine.writers import MAX_RECORDS, MAX_WAIT_S
from fanout.store.limits.limit_table import LimitTable
from fanout.store.opening import open_store

MEMBERS = (1, 4, 16, 50, 200)
ASKS = 400
NETWORK_S = 0.0005
"""From a process to the database and back."""
CHUNK_UNITS, JOBS_OF_A_WORKER, RENEWAL_S = 100, 4, 3.0
SECONDS, WARM_UP_S = 30.0, 5.0
WORKERS, ACCOUNTS = (8, 25, 50, 100, 200), 50


@dataclass(frozen=True)
class Costs:
    """What was measured; seconds."""

    ask_database_s: Mapping[str, float]
    """CPU of the database for an ask, by members."""
    ask_process_s: Mapping[str, float]
    """CPU of the process that asks."""
    unit_database_s: float
    """CPU of the database for a unit: its two records, and its share of claims and renewals."""
    unit_process_s: float


class BusyLimiter:
    """A limiter that always has calls waiting."""

    def measure_backlog(self) -> Backlog:
        return Backlog(0, 1_000, 0, 0, 0, 0)

    @property
    def has_queue(self) -> bool:
        return True

    def hold(self, model: str | None, seconds: float, reason: str) -> None:
        raise NotImplementedError

    def pump(self) -> None:
        pass


async def measure_asks(rig: Rig, members: int) -> tuple[float, float]:
    """Return the CPU of the database and of the process for an ask, with so many members that all want something."""
    rules = SharedRules(60.0, requests=60_000)
    shares = [ProcessShare(f"process-{number:04}", rules) for number in range(members)]
    async with open_store(rig.url) as opened:
        assert opened
        table = LimitTable(opened.database)
        for share in shares:
            share.limiter = BusyLimiter()
        for number in range(members + ASKS):
            if number == members:  # from here on all are known
                database_s, process_s = rig.cluster.cpu_s(), time.process_time()
            await _ask(table, shares[number % members], f"account-{members}")
        return (rig.cluster.cpu_s() - database_s) / ASKS, (time.process_time() - process_s) / ASKS


async def _ask(table: LimitTable, share: ProcessShare, account: str) -> None:
    sent_at = time.monotonic()
    grant = await table.ask(account, share.build_ask(sent_at))
    assert grant
    now = time.monotonic()
    share.accept(grant, sent_at, now)
    for _ in range(50):  # it uses what it got, so that it has something to report
        if share.start_counter.compute_wait_s(now):
            break
        share.start_counter.reserve()
        share.start_counter.count(now)


async def measure_units(rig: Rig) -> tuple[float, float]:
    """Return the CPU of the database and of a worker for a unit, in a job of two workers."""
    await rig.create_job(100_000, concurrency=64)
    rig.start_workers(2)
    while (await rig.count_ended() or 0) < 500:
        await asyncio.sleep(0.2)
    before, database_s, process_s = await rig.count_ended() or 0, rig.cluster.cpu_s(), rig.workers_cpu_s()
    await asyncio.sleep(20)
    units = (await rig.count_ended() or 0) - before
    costs = (rig.cluster.cpu_s() - database_s) / units, (rig.workers_cpu_s() - process_s) / units
    rig.stop_workers()
    return costs


async def measure_costs() -> Costs:
    async with open_rig(latency_ms=20) as rig:
        unit_database_s, unit_process_s = await measure_units(rig)
        asks = {members: await measure_asks(rig, members) for members in MEMBERS}
    by_members = {str(members): asks[members] for members in MEMBERS}
    return Costs(
        {name: database_s for name, (database_s, _) in by_members.items()},
        {name: process_s for name, (_, process_s) in by_members.items()},
        unit_database_s,
        unit_process_s,
    )


def interpolate(costs: Mapping[str, float], members: float) -> float:
    """Return a cost between those that were measured."""
    points = sorted((int(name), cost) for name, cost in costs.items())
    low = max((point for point in points if point[0] <= members), default=points[0])
    high = min((point for point in points if point[0] >= members), default=points[-1])
    share = (members - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
    return low[1] + share * (high[1] - low[1])


class Fleet:
    """Workers that use every account up to its limit."""

    def __init__(self, simulation: Simulation, costs: Costs, workers: int, accounts_of_worker: int, per_account: float) -> None:
        self._simulation, self._costs = simulation, costs
        accounts = min(ACCOUNTS, workers * accounts_of_worker)
        self.members = workers * accounts_of_worker / accounts
        self.ask_s = max(0.25, self.members / MAX_ASKS_PER_S)
        self.wanted_units_per_s = per_account * accounts
        self._units_per_s = self.wanted_units_per_s / workers
        self.ask_latencies_s: list[float] = []
        self.units = 0.0
        for worker in range(workers):
            phase = worker / workers
            for place in range(accounts_of_worker):
                account = (worker * accounts_of_worker + place) % ACCOUNTS
                simulation.start(self._ask(worker, account), self.ask_s * ((phase + place / 7) % 1))
            simulation.start(self._write(), MAX_WAIT_S * phase)

    def _ask(self, worker: int, account: int) -> Process:
        database_s = interpolate(self._costs.ask_database_s, self.members)
        process_s = interpolate(self._costs.ask_process_s, self.members)
        while True:
            sent_at = self._simulation.now
            yield "lock", ACCOUNTS + worker  # its asks have one connection
            yield "wait", 1.5 * NETWORK_S  # with the test of it
            yield "lock", account
            yield "cpu", database_s / 2
            yield "wait", NETWORK_S + process_s
            yield "cpu", database_s / 2
            yield "wait", NETWORK_S
            yield "unlock", account
            yield "wait", NETWORK_S / 2
            yield "unlock", ACCOUNTS + worker
            took_s = self._simulation.now - sent_at
            if sent_at >= WARM_UP_S:
                self.ask_latencies_s.append(took_s)
            yield "wait", self.ask_s - took_s

    def _write(self) -> Process:
        """Write the records of units, two of each, in groups."""
        written, cost_s = 0.0, self._costs.unit_database_s / 2
        while True:
            yield "wait", max(MAX_WAIT_S, 0.5 / self._units_per_s)
            records = min(2 * self._units_per_s * self._simulation.now - written, MAX_RECORDS)
            yield "wait", NETWORK_S
            yield "cpu", records * cost_s
            yield "wait", NETWORK_S
            written += records
            if self._simulation.now >= WARM_UP_S:
                self.units += records / 2


def simulate(costs: Costs, workers: int, accounts_of_worker: int, cores: int, per_account: float) -> dict[str, float | int]:
    simulation = Simulation(cores)
    fleet = Fleet(simulation, costs, workers, accounts_of_worker, per_account)
    simulation.run(SECONDS)
    latencies = sorted(fleet.ask_latencies_s) or [float("inf")]
    return {
        "workers": workers,
        "accounts_of_each": accounts_of_worker,
        "members_of_account": round(fleet.members, 1),
        "asks_per_s": round(len(latencies) / (SECONDS - WARM_UP_S)),
        "ask_p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "ask_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "asking_cores_of_worker": round(interpolate(costs.ask_process_s, fleet.members) * accounts_of_worker / fleet.ask_s, 2),
        "late_asks_ratio": round(sum(one > fleet.ask_s for one in latencies) / len(latencies), 3),
        "busiest_row_ratio": round(
            max(simulation.lock_s[place] for place in range(ACCOUNTS) if place in simulation.lock_s) / SECONDS, 2
        ),
        "busiest_connection_ratio": round(max(simulation.lock_s[ACCOUNTS + place] for place in range(workers)) / SECONDS, 2),
        "units_per_s": round(fleet.units / (SECONDS - WARM_UP_S)),
        "wanted_units_per_s": round(fleet.wanted_units_per_s),
        "database_busy_ratio": round(simulation.busy_s / SECONDS / cores, 2),
    }


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--per-account", type=float, default=100.0, help="units a second that each account allows")
    parser.add_argument("--costs", type=Path)
    arguments = parser.parse_args()
    if arguments.costs and arguments.costs.exists():
        costs = Costs(**json.loads(arguments.costs.read_text()))
    else:
        costs = await measure_costs()
        if arguments.costs:
            arguments.costs.write_text(json.dumps(asdict(costs), indent=1))
    print(json.dumps(asdict(costs)), flush=True)
    for accounts_of_worker in (JOBS_OF_A_WORKER, ACCOUNTS):
        for workers in WORKERS:
            found = simulate(costs, workers, accounts_of_worker, arguments.cores, arguments.per_account)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
