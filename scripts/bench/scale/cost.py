"""One job with a cost limit, run by workers of which some are killed: never above the limit, and at most a call below it.

usage: cost.py [--units N] [--share S] [--workers N] [--kills N] [--concurrency N] [--latency-ms N]

`share` is the part of the units that the limit pays for. The upstream counts the calls, whose costs are all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time

from rig import Rig, open_rig

EACH_USD, MOST_USD = (14 * 1 + 47 * 2) / 1e6, (64 * 1 + 64 * 2) / 1e6
"""A call's cost, and more than what is set aside for it: its prompt is shorter than 48 bytes."""
OPEN = ("queued", "running")
DRAWS = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query ILIKE '%job_money%' AND query ILIKE '%wanted_usd%'"


async def run(rig: Rig, arguments: argparse.Namespace) -> dict[str, object]:
    limit_usd = arguments.units * arguments.share * EACH_USD
    parameters = {"max_tokens": 64}
    job = await rig.create_job(
        arguments.units, concurrency=arguments.concurrency * arguments.workers, max_cost_usd=limit_usd, parameters=parameters
    )
    rig.start_workers(arguments.workers)
    dice, kills, began = random.Random(16), 0, time.monotonic()
    state: tuple[str, str | None] = ("queued", None)
    while state[0] in OPEN:
        ended = await rig.count_ended() or 0
        if kills < arguments.kills and ended >= (kills + 0.5) * arguments.units * arguments.share / arguments.kills:
            rig.kill(dice.randrange(arguments.workers))
            kills += 1
        rig.restart_ended()
        await asyncio.sleep(0.1)
        state = (await rig.fetch(f"SELECT state, reason FROM jobs WHERE number = {job.number}"))[0]
    took = time.monotonic() - began
    draws = (await rig.fetch(DRAWS))[0][0]
    await asyncio.sleep(2)
    summary = await rig.summarize()
    spent_usd = summary["calls"] * EACH_USD
    lost = summary["cut_off_attempts"]
    return {
        "units": arguments.units,
        "workers": arguments.workers,
        "kills": kills,
        "seconds": round(took, 1),
        "state": state,
        **summary,
        "limit_usd": limit_usd,
        "spent_usd": round(spent_usd, 6),
        "calls_that_would_have_fitted": int((limit_usd - spent_usd) / EACH_USD),
        "statements_a_second_and_worker": round(float(draws) / took / arguments.workers, 2),
        "load": round(os.getloadavg()[0], 1),
        "passed": state[0] == "stopped" and limit_usd - (1 + lost) * MOST_USD <= spent_usd <= limit_usd * (1 + 1e-9),
    }


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("units", 5_000), ("workers", 4), ("kills", 10), ("concurrency", 16), ("latency-ms", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--share", type=float, default=0.6)
    arguments = parser.parse_args()
    async with open_rig(latency_ms=arguments.latency_ms) as rig:
        found = await run(rig, arguments)
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    asyncio.run(main())
