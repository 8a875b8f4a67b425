"""A job of a million units on PostgreSQL: time to plan it, memory of each process, size of the database, units a second.

usage: million.py [--units N] [--workers N] [--seconds S]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time

from rig import Rig, open_rig

SIZE = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 6"""


async def run(rig: Rig, arguments: argparse.Namespace) -> dict[str, object]:
    began, cpu_s = time.monotonic(), time.process_time()
    job = await rig.create_job(arguments.units, concurrency=arguments.concurrency * arguments.workers)
    planned_s, planned_cpu_s = time.monotonic() - began, time.process_time() - cpu_s
    found: dict[str, object] = {
        "units": job.units,
        "plan_s": round(planned_s, 1),
        "plan_cpu_s": round(planned_cpu_s, 1),
        "planner_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "planned_database_mb": await _measure_size_mb(rig),
    }
    print(json.dumps(found), flush=True)
    database_cpu_s, began = rig.cluster.cpu_s(), time.monotonic()
    rig.start_workers(arguments.workers)
    ended, memory_mb = 0, [0] * arguments.workers
    rates: list[int] = []
    while ended < job.units and time.monotonic() < began + arguments.seconds:
        before, at = ended, time.monotonic()
        await asyncio.sleep(min(20.0, arguments.seconds))
        ended = await rig.count_ended() or ended
        rates.append(round((ended - before) / (time.monotonic() - at)))
        memory_mb = [max(pair) for pair in zip(memory_mb, rig.memory_mb(), strict=True)]
        print(json.dumps({"ended": ended, "units_per_s": rates[-1], "memory_mb": memory_mb}), flush=True)
    took = time.monotonic() - began
    tables = {name: round(size / 2**20) for name, size in await rig.fetch(SIZE)}
    return {
        **found,
        "workers": arguments.workers,
        "ended": ended,
        "seconds": round(took),
        "units_per_s": round(ended / took),
        "first_and_last_units_per_s": (max(rates[:3]), rates[-1]),
        "worker_peak_mb": memory_mb,
        "database_mb": await _measure_size_mb(rig),
        "tables_mb": tables,
        "database_cpu_ms_per_unit": round((rig.cluster.cpu_s() - database_cpu_s) / max(ended, 1) * 1000, 3),
        "state": (await rig.fetch(f"SELECT state FROM jobs WHERE number = {job.number}"))[0][0],
        **await rig.summarize(),
        "load": round(os.getloadavg()[0], 1),
    }


async def _measure_size_mb(rig: Rig) -> int:
    (size,) = (await rig.fetch("SELECT pg_database_size('bench')"))[0]
    return int(size) // 2**20


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=900)
    arguments = parser.parse_args()
    async with open_rig(latency_ms=5) as rig:
        print(json.dumps(await run(rig, arguments), indent=1))


if __name__ == "__main__":
    asyncio.run(main())
