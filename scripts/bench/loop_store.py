"""The event loop under lists of a big store, and an upload in tiny chunks: the longest single step in the loop's thread.

python scripts/bench/loop_store.py [UNITS [CASE …]]

The server runs in this process, its client in another. See `loop.py` for what a step is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from tempfile import TemporaryDirectory

import aiohttp
from aiohttp import web
from jobs import _make_end, _make_record
from loop import Steps, read_line, start

from fanout.config.settings import load_settings
from fanout.jobs.job import JobSpec
from fanout.observability import logs
from fanout.server.app import SWITCH_INTERVAL_S, create_app, make_runner
from fanout.store.batches import BatchRow, BatchStore
from fanout.store.files import FileRow
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import InputItem, NewJobRow, Unit
from fanout.store.opening import open_store
from fanout.store.tables import files

FILES = 10_000
JOBS = 1_000
AT_ONCE = 500
RUNS = 2
"""Of each case: the first also compiles its statements and imports its libraries, once a process."""
UPLOAD = "upload in chunks of 7 bytes"
LISTS = {
    "files, 10,000": "/v1/files",
    "files, 100": "/v1/files?limit=100",
    "jobs": "/v1/jobs?limit=100",
    "batches": "/v1/batches?limit=100",
    "results, 1,000": "/v1/jobs/job_big/results?limit=1000",
    "items": "/v1/jobs/job_big/items?limit=100",
    "job": "/v1/jobs/job_big",
    "report": "/v1/jobs/job_big/report",
    "usage": "/v1/usage?group_by=model",
    "comparisons": "/v1/comparisons?limit=100",
}
CASES = (UPLOAD, *LISTS)


async def fill(location: str, units: int) -> None:
    """Fill a store with one job of so many units, and with many small jobs, batches and files."""
    async with open_store(location) as store:
        assert store
        jobs, batches = JobStore(store.database), BatchStore(store.database)
        spec, record, body = JobSpec().to_json(), _make_record(), json.dumps({"prompt": "What is the capital of France?"})
        number, epoch = await jobs.create(NewJobRow("job_big", 0.0, account_id="", spec=spec, fingerprint="{}"), "bench")
        async with jobs.journal.run():
            for first in range(0, units, AT_ONCE):
                items = range(first, min(first + AT_ONCE, units))
                await jobs.inputs.add(number, [InputItem(item, item + 1, f"row-{item}", body) for item in items], epoch)
                ends = (_make_end(Unit(number, item, 0, 0), epoch, record) for item in items)
                await asyncio.gather(*(jobs.journal.put(end) for end in ends))
        await jobs.update(number, {"state": "done", "items": units, "units": units, "started": 1.0, "ended": 2.0})
        for index in range(JOBS):
            row = NewJobRow(f"job_{index}", index + 1.0, account_id="", spec=spec, fingerprint="{}")
            other, _ = await jobs.create(row, "bench")
            await jobs.update(other, {"state": "done", "items": 0, "units": 0, "started": 1.0, "ended": 2.0})
        request = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"}
        for index in range(JOBS):
            await batches.create(BatchRow(f"job_{index}", float(index), "", json.dumps(request)))
            await batches.update(f"job_{index}", {"settled": 3.0, "validated": 1.0})
        for first in range(0, FILES, AT_ONCE):
            rows = (
                FileRow(f"file-{index}", float(index), "", f"rows-{index}.jsonl", "batch_output", 10, "job_big")
                for index in range(first, first + AT_ONCE)
            )
            await store.database.execute(*(files.insert().values(row._asdict()) for row in rows))


async def send_file() -> AsyncIterator[bytes]:
    """Yield a form with a file of 1 MiB, in chunks of 7 bytes."""
    yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
    for _ in range(2**20 // 7):
        yield b"1234567"
    yield b"\r\n--b--\r\n"


async def run_client() -> None:
    """Send the requests that standard input names, one line each."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        for line in sys.stdin:
            case, port = json.loads(line)
            base, began = f"http://127.0.0.1:{port}", time.monotonic()
            if case == UPLOAD:
                headers = {"Content-Type": "multipart/form-data; boundary=b"}
                answer = session.post(f"{base}/v1/files", data=send_file(), headers=headers)
            else:
                answer = session.get(base + LISTS[case])
            async with answer as response:
                received = len(await response.read())
            print(json.dumps([response.status, received, time.monotonic() - began]), flush=True)


async def measure(units: int, cases: Iterable[str], steps: Steps) -> None:
    client = await start("client", 0, __file__)
    try:
        with TemporaryDirectory() as folder:
            location = os.environ.get("BENCH_STORE", f"sqlite:///{folder}/store.db")
            await fill(location, units)
            environ = {"HOME": folder, "FANOUT_STORE": location, "FANOUT_HISTORY": "full"}
            runner = make_runner(create_app(load_settings(None, environ)), 1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            gc.freeze()  # as `serve` does
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            port = runner.addresses[0][1]
            await asyncio.sleep(1)
            ticking = asyncio.create_task(steps.tick())
            print("| request | status | longest step, ms | where it ended | timer late, ms | loop's CPU, ms | s | bytes |")
            for case in (case for case in cases for _ in range(RUNS)):
                await asyncio.sleep(0.3)
                steps.reset()
                assert client.stdin
                client.stdin.write((json.dumps([case, port]) + "\n").encode())
                status, length, took_s = await read_line(client)
                print(
                    f"| {case} | {status} | {steps.longest_s * 1e3:.2f} | {steps.name} | {steps.latest_s * 1e3:.1f} "
                    f"| {steps.cpu_s * 1e3:.0f} | {took_s:.1f} | {length:,} |",
                    flush=True,
                )
            ticking.cancel()
            await runner.cleanup()
    finally:
        with suppress(ProcessLookupError):
            client.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        asyncio.run(run_client())
    else:
        logs.configure("error", "json")
        asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2:] or CASES, Steps()))
