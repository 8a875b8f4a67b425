"""One job with a `concurrency` of its own, run by several workers: how many of its places are in use while there is work.

usage: places.py [--workers N] [--concurrency N] [--latency-ms N] [--seconds S]

The upstream must never have more calls at once than that; by its rate and latency it has `in_use` of them on average.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig import Rig, open_rig

WORKERS = "SELECT owner, sum(running)::int FROM job_chunks WHERE owner IS NOT NULL AND ended IS NULL GROUP BY owner"


async def run(rig: Rig, arguments: argparse.Namespace) -> dict[str, object]:
    most_rate = arguments.concurrency / arguments.latency_ms * 1000
    await rig.create_job(int(most_rate * (arguments.seconds + 20)), concurrency=arguments.concurrency)
    rig.start_workers(arguments.workers)
    while len(await rig.fetch(WORKERS)) < arguments.workers:
        await asyncio.sleep(0.2)
    await asyncio.sleep(5)
    cpu_s = rig.workers_cpu_s()
    rate = await rig.measure_rate(arguments.seconds)
    return {
        "units_per_s": round(rate, 1),
        "in_use": round(rate / most_rate, 3),
        "most_at_once": rig.count_calls()["at_once"],
        "in_flight_of_each": sorted(running for _, running in await rig.fetch(WORKERS)),
        "cores_of_workers": round((rig.workers_cpu_s() - cpu_s) / arguments.seconds, 2),
        "load": round(os.getloadavg()[0], 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("workers", 4), ("concurrency", 64), ("latency-ms", 50), ("seconds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    async with open_rig(latency_ms=arguments.latency_ms) as rig:
        found = await run(rig, arguments)
    print(json.dumps(found))
    sys.exit(0 if found["most_at_once"] <= arguments.concurrency else 1)


if __name__ == "__main__":
    asyncio.run(main())
