"""Workers of one server, killed one after another under load: what their callers see.

usage: python scripts/bench/workers_killed.py [--workers N] [--kills N]

Callers post comparisons to embedded models, each on a new connection. Every request must be answered, except those that a
killed worker had accepted: at most as many as were in flight, and each fails at once. The counts of the metrics never go back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
from machine import find_free_port

CALLERS = 16
LIFE_S = 11.0
"""Of each worker before it is killed: one that dies sooner, again and again, is replaced later and later."""
BODY = {"model": ["local/ngram-2"], "prompt": "The return statement", "max_tokens": 4}
ANSWERED = "http_server_request_duration_seconds_count"


async def call(url: str, ends: Counter[str], longest_s: list[float], stop: asyncio.Event) -> None:
    """Post requests until the end, and count how they end."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completion", json=BODY) as response:
                await response.read()
                ends[str(response.status)] += 1
        except aiohttp.ClientError as error:
            ends[type(error).__name__] += 1
        longest_s[0] = max(longest_s[0], time.monotonic() - began)


async def count_answered(url: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        response.raise_for_status()
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(ANSWERED) and "/v1/completion" in line)


def list_workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def measure(workers: int, kills: int, folder: Path) -> dict[str, object]:
    port = find_free_port()
    command = [sys.executable, "-m", "fanout", "serve", "--port", str(port), "--workers", str(workers)]
    environ = os.environ | {"FANOUT_STORE": str(folder / "store.db"), "HOME": str(folder)}
    log = folder / "log"
    server = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=log.open("wb"))
    assert server.stdout
    await server.stdout.readline()
    url, ends, stop, longest_s = f"http://127.0.0.1:{port}", Counter[str](), asyncio.Event(), [0.0]
    callers = [asyncio.create_task(call(url, ends, longest_s, stop)) for _ in range(CALLERS)]
    backward, counted = 0, 0.0
    for _ in range(kills):
        await asyncio.sleep(LIFE_S / workers)
        now = await count_answered(url)
        backward, counted = backward + (now < counted), now
        os.kill(list_workers(server.pid)[0], signal.SIGKILL)  # the oldest
    await asyncio.sleep(LIFE_S / workers)
    stop.set()
    await asyncio.gather(*callers)
    backward += await count_answered(url) < counted
    server.terminate()
    code = await server.wait()
    events = Counter(json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{"))
    return {
        "workers": workers,
        "kills": kills,
        "ends": dict(ends),
        "longest_s": round(longest_s[0], 2),
        "counts_that_went_back": backward,
        "died": events["worker.died"],
        "replaced": events["worker.replaced"],
        "crashed": events["request.crashed"],
        "exit_code": code,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(chosen.workers, chosen.kills, Path(folder)))
    print(json.dumps(found, indent=1))
    ends = found["ends"]
    assert isinstance(ends, dict)
    lost = sum(ends.values()) - ends["200"]
    is_good = lost <= chosen.kills * CALLERS and not found["counts_that_went_back"] and not found["exit_code"]
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())
