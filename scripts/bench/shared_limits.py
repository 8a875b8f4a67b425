"""Limits over 1, 2, 4 and 8 real processes with more calls than a limit allows, as their upstream counts them.

usage: shared_limits.py [--store postgresql|sqlite] [--processes 1,2,4,8] [--limit N] [--burst N] [--concurrency N]
                        [--seconds S] [--away FROM,SECONDS]

With `--away`, PostgreSQL is stopped after FROM seconds, and started again SECONDS later.
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
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from cluster import run_cluster

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.store.opening import open_store

CALLS_AT_ONCE = 24
ANSWER = json.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4},
    }
).encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()


class CountingUpstream:
    """A provider that notes when calls arrive, and how many are in flight."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s, self.in_flight, self.most = latency_s, 0, 0
        self.arrivals: list[float] = []
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                self.arrivals.append(time.monotonic())
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                await asyncio.sleep(self.latency_s)
                self.in_flight -= 1
                writer.write(HEAD + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def count_most(self, length_s: float) -> int:
        """Return the most arrivals in any window."""
        most = first = 0
        for place, at in enumerate(self.arrivals):
            while at - self.arrivals[first] >= length_s:
                first += 1
            most = max(most, place - first + 1)
        return most


async def work(config: str, location: str, seconds: float) -> None:
    """Call without a pause, as one process; print what it has done."""
    settings = load_settings(Path(config), {})
    async with open_store(location, shares_limits=True) as store:
        assert store
        assert store.limits
        async with open_dispatcher(settings, sharing=store.limits) as dispatcher:
            request = build_request("hi", ["up/m"])
            (call,) = dispatcher.plan(request)
            waits_ms = []
            for _ in range(6):
                outcome = await dispatcher.attempt(call, deadline_s=30)
                waits_ms.append(round(outcome.timing.queued_s * 1e3, 1))
                await asyncio.sleep(0.8)  # what was granted has gone back
            # The first one connects, too.
            print(json.dumps({"idle_ms": statistics.median(waits_ms[1:])}), flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            until, done = time.monotonic() + seconds, 0

            async def call_again() -> None:
                nonlocal done
                while (left := until - time.monotonic()) > 0:
                    (call,) = dispatcher.plan(request)
                    outcome = await dispatcher.attempt(call, deadline_s=left)
                    done += outcome.cost is not None or not hasattr(outcome.result, "kind")

            await asyncio.gather(*(call_again() for _ in range(CALLS_AT_ONCE)))
            print(json.dumps({"calls": done, "asks": store.limits.asks}), flush=True)


async def measure(arguments: argparse.Namespace, count: int, location: str, cluster: Any) -> None:
    """Print a line for one number of processes."""
    limits = {"requests_per_minute": arguments.limit, "burst": arguments.burst, "concurrency": arguments.concurrency}
    limits = {name: limit for name, limit in limits.items() if limit}
    upstream = CountingUpstream(0.02)
    with tempfile.TemporaryDirectory() as folder:
        async with upstream.run():
            rows = {"providers": {"up": {"adapter": "openai", "base_url": upstream.url, "limits": limits}}, "extends": False}
            config = Path(folder, "providers.json")
            config.write_text(json.dumps(rows))
            command = [sys.executable, __file__, "--work", str(config), location, str(arguments.seconds)]
            processes = []
            idle_ms = []
            for _ in range(count):
                process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
                assert process.stdin
                assert process.stdout
                processes.append(process)
                idle_ms.append(json.loads(await process.stdout.readline())["idle_ms"])
            began = time.monotonic()
            for process in processes:
                process.stdin.write(b"\n")  # type: ignore[union-attr]
            if arguments.away:
                start_s, length_s = map(float, arguments.away.split(","))
                await asyncio.sleep(start_s)
                cluster.stop()
                await asyncio.sleep(length_s)
                await asyncio.to_thread(cluster.start)
            lines = [(await process.communicate())[0].splitlines() for process in processes]
    for line in {line for some in lines for line in some[:-1]}:  # the log
        print(line.decode(), file=sys.stderr)
    outputs = [json.loads(some[-1]) for some in lines]
    print(json.dumps(summarize(arguments, upstream, count, began, idle_ms, outputs)), flush=True)


def summarize(
    arguments: argparse.Namespace,
    upstream: CountingUpstream,
    count: int,
    began: float,
    idle_ms: Sequence[float],
    outputs: Sequence[dict[str, int]],
) -> dict[str, Any]:
    """Return the figures of one measurement."""
    figures: dict[str, Any] = {"processes": count, "idle_call_waits_ms": statistics.median(idle_ms)}
    if arguments.limit:
        periods = int(arguments.seconds // 60)
        used = sum(at < began + 60 * periods for at in upstream.arrivals)
        figures |= {
            "most_of_limit": upstream.count_most(60) / arguments.limit,
            "used": used / arguments.limit / max(periods, 1),
        }
        if arguments.burst:
            burst_s = 60 * arguments.burst / arguments.limit
            figures["most_of_burst"] = upstream.count_most(burst_s) / arguments.burst
    if arguments.concurrency:
        figures["most_in_flight"] = upstream.most / arguments.concurrency
        rate = len(upstream.arrivals) / arguments.seconds
        figures["calls_per_s"] = round(rate, 1)
    figures["asks_per_s_and_process"] = round(sum(output["asks"] for output in outputs) / arguments.seconds / count, 2)
    shares = [output["calls"] for output in outputs]
    return figures | {"calls": shares, "load": round(os.getloadavg()[0], 1)}


async def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        await work(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--processes", default="1,2,4,8")
    parser.add_argument("--limit", type=int, default=1200)
    parser.add_argument("--burst", type=int)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--seconds", type=float, default=125)
    parser.add_argument("--away")
    arguments = parser.parse_args()
    with run_cluster() if arguments.store == "postgresql" else nullcontext() as cluster:
        for count in map(int, arguments.processes.split(",")):
            # An empty database for each number of processes: what one has used counts for the next.
            with tempfile.TemporaryDirectory() as folder:
                location = str(Path(folder, "fanout.db"))
                if cluster:
                    location = cluster.url(f"limits_{count}")
                    await create(cluster.url(), f"limits_{count}")
                await measure(arguments, count, location, cluster)


async def create(server: str, name: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
