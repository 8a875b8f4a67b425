"""What a batch job costs: its records beside bare inserts of the same rows, and a whole job beside bare calls."""

from __future__ import annotations

import asyncio
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import Bench, each
from servers import HERE, providers_file, ran_alone, upstream
from table import Row

from fanout.core.schema import Answer, Choice, Completion, Timing
from fanout.core.usage import Cost, Usage, WorkTotals
from fanout.jobs.job import JobSpec
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.store import open_store
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptStarted, UnitEnded
from fanout.store.jobs.records import NewJobRow, Unit

GROUP = 20
"""Rows of one bare transaction."""
TASKS = 256
"""That write at once through group commit."""
LEAST = 0.5
ANSWER = "The capital of France is Paris, which has been its seat of government for most of its history. " * 3
ATTEMPT = "INSERT INTO attempts (job, item, entry, repeat, attempt, epoch, started) VALUES (?, ?, ?, ?, ?, ?, ?)"


def journal(bench: Bench) -> list[Row]:
    """Attempts and ends written to SQLite, each acknowledged only once it is on disk."""
    taken = bench.by_turns(
        {"floor": lambda s: _bare(bench.folder, s), "fanout": lambda s: asyncio.run(_grouped(bench.folder, s))}
    )
    return [Row.of("batch records", "1/s", taken, against="ratio", must=LEAST, at_least=True)]


def _record() -> str:
    completion = Completion(
        (Choice(Answer(ANSWER), "stop"),), Usage(20, 60, raw={"prompt_tokens": 20, "completion_tokens": 60})
    )
    timing = Timing(0.001, None, 0.8, 0.81, 1)
    return StoredOutcome("m", "m", "up", "m-1", completion, timing=timing, cost=Cost(0.001, "providers.json")).to_json()


def _ended(unit: Unit, epoch: int, record: str) -> UnitEnded:
    return UnitEnded(
        *(unit, 1, epoch, time.time(), "m", "answered", record),
        WorkTotals(1, 20, 60, cost_usd=0.001, attempts=1, total_ms=810),
        text=ANSWER,
    )


async def _opened(folder: Path) -> tuple[Path, str]:
    path = folder / f"journal-{time.monotonic_ns()}.db"
    return path, JobSpec().to_json()


async def _grouped(folder: Path, seconds: float) -> float:
    """Records a second."""
    path, spec = await _opened(folder)
    async with open_store(str(path)) as store:
        assert store
        jobs = JobStore(store.database)
        number = await jobs.create(NewJobRow("job_x", 0.0, account_id="", spec=spec, fingerprint="{}"))
        epoch = await jobs.leases.acquire(number, "bench") or 0
        record, items, began = _record(), iter(range(10**9)), time.monotonic()
        written = 0

        async def work() -> None:
            nonlocal written
            while time.monotonic() - began < seconds:
                unit = Unit(number, next(items), 0, 0)
                await jobs.journal.put(AttemptStarted(unit, 1, epoch, time.time()))
                await jobs.journal.put(_ended(unit, epoch, record))
                written += 2

        async with jobs.journal.run():
            await asyncio.gather(*(work() for _ in range(TASKS)))
        return written / (time.monotonic() - began)


def _bare(folder: Path, seconds: float) -> float:
    """The same rows, the same durability, with nothing around them."""
    path, _ = asyncio.run(_opened(folder))
    asyncio.run(_made(path))
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    columns = [row[1] for row in connection.execute("PRAGMA table_info(units)")]
    insert = f"INSERT INTO units ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    record, began, written = _record(), time.monotonic(), 0
    items: Iterator[int] = iter(range(10**9))
    while time.monotonic() - began < seconds:
        units = [Unit(1, next(items), 0, 0) for _ in range(GROUP)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(ATTEMPT, [(*unit, 1, 1, time.time()) for unit in units])
        connection.execute("COMMIT")
        rows = [_columns(_ended(unit, 1, record), columns) for unit in units]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")
        written += 2 * GROUP
    connection.close()
    return written / (time.monotonic() - began)


async def _made(path: Path) -> None:
    async with open_store(str(path)):
        pass


def _columns(ended: UnitEnded, columns: list[str]) -> tuple[Any, ...]:
    known: dict[str, Any] = {**ended.unit._asdict(), "state": "done", "attempt": 1, "ended": ended.at, "model": "m"}
    known |= {"result": "answered", "input_tokens": 20, "output_tokens": 60, "cost_usd": 0.001, "total_ms": 810}
    known |= {"answer": b"0123456789abcdef", "record": ended.record}
    return tuple(known.get(name) for name in columns)


def job(bench: Bench) -> list[Row]:
    """A job from its making to its end, beside bare calls that keep nothing."""
    prompts, models, at_once = (1_000 if bench.quick else 25_000), 4, 64
    python = shlex.quote(sys.executable)
    templates = {
        "floor": f"{python} {HERE / 'client_floor.py'} {{upstream}} {{prompts}} {{models}} {{at_once}}",
        "fanout": f"{python} {HERE / 'job_alone.py'} {{config}} {{store}} {{prompts}} {{models}} {{at_once}}",
    }
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in templates}
    with upstream(bench) as to:
        values: dict[str, Any] = {"upstream": to.url, "config": providers_file(bench, to, attempts=3)}
        values |= {"prompts": prompts, "models": models, "at_once": at_once}
        for _ in range(bench.repeats if bench.quick else 1):
            for name, template in templates.items():
                taken[name].append(ran_alone(bench, template, values | {"store": bench.folder / f"{time.monotonic_ns()}.db"}))
    last, units = taken["fanout"][-1], prompts * models
    cpu_us = each(taken, lambda run: run["cpu_s"] * 1e6 / run["calls"])
    errors = sum(run["errors"] for of in taken.values() for run in of)
    rest: dict[str, Any] = {"errors": errors, "rss_mb": last["rss_mb"]}
    return [
        Row.of(f"job of {units:,} units: CPU per unit", "µs", cpu_us, against="ratio", **rest),
        Row("job: units a second", "1/s", last["calls"] / last["wall_s"], samples=taken, **rest),
        Row(
            "job: RSS at its end, over that after a tenth", "MB", last["rss_mb"], last["rss_early_mb"], against="added", **rest
        ),
        Row("job: store", "MB", last["store_mb"], **rest),
    ]
