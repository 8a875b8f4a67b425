"""Throughput of 1, 2, 4 and 8 workers beside that of one, in one run: up to the provider's limit, and up to the cores.

usage: ratio.py [--only limited|unlimited] [--seconds S]

On a machine with other work only the CPU of a unit can be compared: where it stays the same, workers scale up to the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from rig import open_rig

COUNTS = (1, 2, 4, 8)
LIMIT_PER_MINUTE = 1_200
CALLS_AT_ONCE, LATENCY_MS = 5, 1_000
"""Of one worker with a limit: 5 calls a second, a quarter of what the provider allows."""


async def measure(seconds: float, *, is_limited: bool) -> None:
    """Print a line for each number of workers."""
    limits = {"requests_per_minute": LIMIT_PER_MINUTE} if is_limited else {}
    at_once = CALLS_AT_ONCE if is_limited else 256
    alone = 0.0
    for workers in COUNTS:
        latency_ms = LATENCY_MS if is_limited else 5
        async with open_rig(latency_ms=latency_ms, limits=limits, FANOUT_MAX_IN_FLIGHT=str(at_once)) as rig:
            await rig.create_job(10_000 if is_limited else 150_000, concurrency=at_once * workers)
            rig.start_workers(workers)
            while (await rig.count_ended() or 0) < 40 * workers:
                await asyncio.sleep(0.2)
            await asyncio.sleep(5)
            cpu_s, workers_cpu_s = rig.cluster.cpu_s(), rig.workers_cpu_s()
            rate = await rig.measure_rate(seconds)
            units = rate * seconds
            alone = alone or rate
            figures = {
                "limited": is_limited,
                "workers": workers,
                "units_per_s": round(rate, 1),
                "ratio": round(rate / alone, 2),
                "worker_cpu_ms_per_unit": round((rig.workers_cpu_s() - workers_cpu_s) / units * 1000, 2),
                "database_cpu_ms_per_unit": round((rig.cluster.cpu_s() - cpu_s) / units * 1000, 2),
                "load": round(os.getloadavg()[0], 1),
            }
            if is_limited:
                figures |= {
                    "of_limit": round(rate * 60 / LIMIT_PER_MINUTE, 3),
                    **{f"window_{window}_s": rig.count_window(window) for window in (1, 60)},
                }
            print(json.dumps(figures), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("limited", "unlimited"))
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    if arguments.only != "unlimited":
        # Two whole windows of the limit: what is allowed may be used in the first half of each.
        await measure(120, is_limited=True)
    if arguments.only != "limited":
        await measure(arguments.seconds, is_limited=False)


if __name__ == "__main__":
    asyncio.run(main())
