"""The time until all processes hold the calls of a model of which one of them has met a 429, as their upstream sees it.

usage: shared_pauses.py [--store postgresql|sqlite] [--processes N] [--limit N] [--rounds N]

Every process calls the model all the time, two calls at once; an account has no limits, or with `--limit` one of requests a
minute. In each round the upstream answers one call with a 429 and `Retry-After: 1`, and notes what arrives in that second.
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
from contextlib import nullcontext
from pathlib import Path

from cluster import run_cluster
from shared_limits import ANSWER, HEAD, CountingUpstream, create

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.store.opening import open_store

PAUSE_S, ROUND_S = 1, 2.0
BUSY = b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'
BUSY_HEAD = (
    f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {PAUSE_S}\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BUSY)}\r\n\r\n"
).encode()


class BusyUpstream(CountingUpstream):
    """A provider that is busy for one call whenever it is told to be."""

    def __init__(self, latency_s: float) -> None:
        super().__init__(latency_s)
        self.is_busy_next = False
        self.refused_at: list[float] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                self.arrivals.append(time.monotonic())
                await asyncio.sleep(self.latency_s)
                if self.is_busy_next:
                    self.is_busy_next = False
                    self.refused_at.append(time.monotonic())
                    writer.write(BUSY_HEAD + BUSY)
                else:
                    writer.write(HEAD + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def list_delays_ms(self) -> list[float]:
        """Return for each 429 the time until the last call that arrived in spite of it."""
        found = []
        for at in self.refused_at:
            late = [one - at for one in self.arrivals if 0 < one - at < 0.9 * PAUSE_S]
            found.append(max(late, default=0.0) * 1e3)
        return found


async def work(config: str, location: str, seconds: float) -> None:
    """Call without a pause, as one process; print the transactions that pauses have cost."""
    async with open_store(location, shares_limits=True) as store:
        assert store
        assert store.limits
        async with open_dispatcher(load_settings(Path(config), {}), sharing=store.limits) as dispatcher:
            request, until = build_request("hi", ["up/m"]), time.monotonic() + seconds

            async def call_again() -> None:
                while (left := until - time.monotonic()) > 0:
                    (call,) = dispatcher.plan(request)
                    await dispatcher.attempt(call, deadline_s=left)

            await asyncio.gather(*(call_again() for _ in range(2)))
            spent = {"asks": store.limits.asks, "exchanges": store.limits.pauses.exchanges}
            print(json.dumps(spent), flush=True)


async def measure(arguments: argparse.Namespace, location: str) -> None:
    """Print the figures of one store."""
    upstream, seconds = BusyUpstream(0.005), arguments.rounds * ROUND_S + 4
    limits = {"limits": {"requests_per_minute": arguments.limit}} if arguments.limit else {}
    with tempfile.TemporaryDirectory() as folder:
        async with upstream.run():
            row = {"adapter": "openai", "base_url": upstream.url, **limits}
            config = Path(folder, "providers.json")
            config.write_text(json.dumps({"providers": {"up": row}, "extends": False}))
            command = [sys.executable, __file__, "--work", str(config), location, str(seconds)]
            processes = [await asyncio.create_subprocess_exec(*command, stdout=-1) for _ in range(arguments.processes)]
            await asyncio.sleep(3)
            for _ in range(arguments.rounds):
                upstream.is_busy_next = True
                await asyncio.sleep(ROUND_S)
            lines = [(await process.communicate())[0].splitlines()[-1] for process in processes]
    delays_ms, spent = upstream.list_delays_ms(), [json.loads(line) for line in lines]
    figures = {
        "processes": arguments.processes,
        "pauses": len(delays_ms),
        "p50_ms": round(statistics.median(delays_ms), 1),
        "most_ms": round(max(delays_ms), 1),
        **{
            f"{name}_per_s_and_process": round(statistics.mean(one[name] for one in spent) / seconds, 2)
            for name in ("asks", "exchanges")
        },
        "calls": len(upstream.arrivals),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures), flush=True)


async def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        await work(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with (
        run_cluster() if arguments.store == "postgresql" else nullcontext() as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        location = str(Path(folder, "fanout.db"))
        if cluster:
            location = cluster.url("pauses")
            await create(cluster.url(), "pauses")
        await measure(arguments, location)


if __name__ == "__main__":
    asyncio.run(main())
