"""Two ways to carry a job's chunks over many workers, under the faults that queues on PostgreSQL meet.

usage: bake_off.py [--only WORD …] [--engine WORD] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from claims_worker import CREATE, PLAN
from cluster import Cluster, run_cluster
from fleet import Engine, Fleet, fetch
from network import Network, open_network
from scenarios import POSTGRES_ERRORS, SCENARIOS, Scenario
from units import CREATE_RECORDS, UNITS

WORKERS = 4
STUCK_S = 45.0
"""A job without a new record for so long has lost what is missing."""
ENGINE_PLAN = (
    "INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
    "SELECT 'chunks', 'carry', jsonb_build_object('number', number) FROM generate_series($1::integer, $2::integer) AS number"
)

ENGINE_OPEN = "task_name = 'carry' AND status IN ('todo', 'doing')"


def read_engine_schema() -> str:
    return resources.files("procrastinate.sql").joinpath("schema.sql").read_text()


ENGINES = (
    Engine("procrastinate", "engine_worker.py", "procrastinate_jobs", read_engine_schema, ENGINE_PLAN, ENGINE_OPEN, "retry"),
    Engine(
        "procrastinate, late ends",
        "engine_worker.py",
        "procrastinate_jobs",
        read_engine_schema,
        ENGINE_PLAN,
        ENGINE_OPEN,
        "finish",
    ),
    Engine("own claims", "claims_worker.py", "chunks", lambda: CREATE, PLAN, "NOT ended"),
)


@dataclass
class Run:
    """One scenario of one engine."""

    cluster: Cluster
    network: Network
    fleet: Fleet
    url: str
    planned: int = 0
    rate: float = 0.0
    note: str = ""

    async def query(self, sql: str) -> list[Any]:
        return await fetch(self.url, sql)

    async def plan(self, chunks: int) -> None:
        first, self.planned = self.planned, self.planned + chunks
        await fetch(self.url, self.fleet.engine.plan, first, self.planned - 1)
        if self.fleet.engine.table == "chunks":
            await fetch(self.url, "SELECT pg_notify('chunks', '')")

    async def count(self) -> int:
        return int((await self.query("SELECT count(*) FROM records"))[0][0])

    async def wait_for_all(self) -> float:
        """Wait until every unit has its record, or nothing comes any more; return when the last came."""
        recorded, since = -1, time.monotonic()
        while time.monotonic() < since + STUCK_S:
            found = recorded
            with suppress(*POSTGRES_ERRORS):
                found = await self.count()
            if found != recorded:
                recorded, since = found, time.monotonic()
            if recorded == self.planned * UNITS:
                break
            await asyncio.sleep(0.2)
        return since


@asynccontextmanager
async def prepare(cluster: Cluster, engine: Engine, scenario: Scenario, log: Path) -> AsyncGenerator[Run]:
    """Create a database, plan the chunks and start the workers."""
    await fetch(cluster.url(), "DROP DATABASE IF EXISTS bench WITH (FORCE)")
    await fetch(cluster.url(), "CREATE DATABASE bench")
    url = cluster.url("bench")
    await fetch(url, engine.schema() + CREATE_RECORDS)
    async with open_network(cluster.port) as network:
        behind = [cluster.url("bench", network.port)] * scenario.through_network
        fleet = Fleet(engine, behind + [url] * (WORKERS - len(behind)), scenario.step_s, log)
        run = Run(cluster, network, fleet, url)
        await run.plan(scenario.chunks)
        await fetch(url, "ANALYZE")
        await fleet.start()
        try:
            until = time.monotonic() + 60
            while not fleet.reports.held and time.monotonic() < until:
                await asyncio.sleep(0.05)
            yield run
        finally:
            await fleet.stop()


async def play(cluster: Cluster, engine: Engine, scenario: Scenario, log: Path) -> dict[str, Any]:
    """Run a scenario; return its figures."""
    async with prepare(cluster, engine, scenario, log) as run:
        began = time.monotonic()
        await scenario.disturb(run)
        reports, lost, never_ended = run.fleet.reports, None, None
        if scenario.step_s:
            ended = await run.wait_for_all()
            lost = run.planned * UNITS - await run.count()
            await asyncio.sleep(3)  # the last chunks end after their records
            never_ended = (await run.query(f"SELECT count(*) FROM {engine.table} WHERE {engine.open}"))[0][0]
            run.rate = (run.planned * UNITS - lost) / (ended - began)
        recoveries = sorted(reports.recoveries)
        return {
            "engine": engine.name,
            "scenario": scenario.name,
            "lost": lost,
            "twice": reports.twice() if scenario.step_s else None,
            "never_ended": never_ended,
            "refused": reports.refused,
            "restarts": run.fleet.restarts,
            "recovery_p50_s": round(statistics.median(recoveries), 1) if recoveries else None,
            "recovery_max_s": round(recoveries[-1], 1) if recoveries else None,
            "units_per_s": round(run.rate),
            "note": run.note,
            "load": round(os.getloadavg()[0], 1),
        }


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--engine", default="")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    with run_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        for scenario in SCENARIOS:
            if arguments.only and not any(word in scenario.name for word in arguments.only):
                continue
            for engine in ENGINES:
                # What becomes of late ends makes no difference where nobody is late.
                if arguments.engine in engine.name and not (engine.late == "finish" and not scenario.has_late_ends):
                    log = Path(folder) / "workers.log"
                    found.append(await play(cluster, engine, scenario, log))
                    print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
