"""One job of many workers under faults: `kill -9`, restarts of PostgreSQL, cuts of the network, workers that sleep.

usage: chaos.py [--units N] [--workers N] [--kills N] [--restarts N] [--cuts N] [--sleeps N] [--away-s S]
       [--concurrency N] [--latency-ms N] [--per-minute N]

Every unit must have exactly one record, and the upstream may have seen no more calls than units and what was in flight when
a worker was killed or cut off, and no more at once than the job's `concurrency`; with a limit, in no minute more than that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import Network, open_network
from rig import Rig, open_rig

STUCK_S = 120.0


class Faults:
    """Faults that come as the job's units end, spread evenly over them."""

    def __init__(self, rig: Rig, network: Network, arguments: argparse.Namespace) -> None:
        self._rig, self._network, self._away_s = rig, network, arguments.away_s
        self._dice = random.Random(14)
        counts = {"kill": arguments.kills, "restart": arguments.restarts, "cut": arguments.cuts, "sleep": arguments.sleeps}
        self._due = sorted(
            (units, fault)
            for fault, count in counts.items()
            for units in (int((place + 0.5) * arguments.units / count) for place in range(count))
        )
        self.made: list[str] = []

    async def make_due(self, ended: int) -> None:
        while self._due and self._due[0][0] <= ended:
            _, fault = self._due.pop(0)
            self.made.append(fault)
            if fault == "kill":
                self._rig.kill(self._dice.randrange(len(self._rig.workers)))
                return  # the next one when there is progress
            if fault == "restart":
                self._rig.cluster.stop()
                await asyncio.sleep(2)
                await asyncio.to_thread(self._rig.cluster.start)
                return
            if fault == "sleep":
                worker = self._dice.choice(self._rig.workers)
                worker.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self._away_s)
                worker.send_signal(signal.SIGCONT)
                return
            self._network.is_cut = True
            await asyncio.sleep(self._away_s)
            self._network.is_cut = False
            return


async def run(rig: Rig, arguments: argparse.Namespace) -> dict[str, object]:
    async with open_network(rig.cluster.port) as network:
        job = await rig.create_job(arguments.units, concurrency=arguments.concurrency * arguments.workers)
        rig.start_workers(arguments.workers, (rig.cluster.port, network.port) if arguments.cuts else ())
        faults, restarted = Faults(rig, network, arguments), 0
        began = seen_at = time.monotonic()
        ended = 0
        while ended < arguments.units and time.monotonic() < seen_at + STUCK_S:
            found = await rig.count_ended()
            if found is not None and found != ended:
                ended, seen_at = found, time.monotonic()
            await faults.make_due(ended)
            restarted += rig.restart_ended()
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
        await asyncio.sleep(3)
        state = await rig.fetch(f"SELECT state, reason FROM jobs WHERE number = {job.number}")
        summary = await rig.summarize()
    in_flight = (len(faults.made) - faults.made.count("restart")) * arguments.concurrency
    in_flight *= max(1, arguments.workers // 2) if arguments.cuts else 1
    most = rig.count_window(60)
    is_exact = summary["records"] == summary["distinct"] == summary["answered"] == arguments.units
    return {
        "units": arguments.units,
        "workers": arguments.workers,
        "faults": {fault: faults.made.count(fault) for fault in ("kill", "restart", "cut", "sleep")},
        "ended_by_themselves": restarted,
        "seconds": round(took, 1),
        "state": state[0],
        **summary,
        "extra_calls": summary["calls"] - arguments.units,
        "in_flight_at_most": in_flight,
        "most_in_a_minute": most,
        "load": round(os.getloadavg()[0], 1),
        "passed": is_exact
        and summary["calls"] <= arguments.units + in_flight
        and state[0][0] == "done"
        and most <= (arguments.per_minute or most)
        and summary["most_calls_at_once"] <= arguments.concurrency * arguments.workers,
    }


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("units", 20_000), ("workers", 8), ("kills", 100), ("restarts", 5), ("cuts", 0), ("sleeps", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--away-s", type=float, default=25.0, help="of a cut or a sleep: longer than a lease")
    parser.add_argument("--concurrency", type=int, default=32, help="of each worker; the job has that of all")
    parser.add_argument("--latency-ms", type=int, default=500)
    parser.add_argument("--per-minute", type=int)
    parser.add_argument("--logs", type=Path, help="where to write what the workers have logged")
    arguments = parser.parse_args()
    limits = {"requests_per_minute": arguments.per_minute} if arguments.per_minute else {}
    at_once = str(arguments.concurrency)
    async with open_rig(latency_ms=arguments.latency_ms, limits=limits, FANOUT_MAX_IN_FLIGHT=at_once) as rig:
        found = await run(rig, arguments)
        if arguments.logs:
            arguments.logs.write_text(rig.read_logs())
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    asyncio.run(main())
