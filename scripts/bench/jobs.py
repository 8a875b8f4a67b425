"""The cost of batch jobs: records compared with bare inserts of the same rows, and a whole job compared with bare calls."""

from __future__ import annotations

import asyncio
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench import Bench, extract
from servers import FOLDER, run_to_end, run_upstream, write_providers_file
from table import Row

from fanout.core.schema import Answer, Choice, Completion, Timing
from fanout.core.usage import Cost, Usage, WorkTotals
from fanout.jobs.job import JobSpec
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptStarted, UnitEnded
from fanout.store.jobs.records import NewJobRow, Unit
from fanout.store.opening import open_store

TRANSACTION_ROWS = 20
"""In the bare measurement."""
WRITERS = 256
"""Tasks that write at once through group commit."""
MIN_RATIO = 0.5
MAX_GROWTH = 1.25
"""Cost of a call among many models, over that among few."""
ANSWER = "The capital of France is Paris, which has been its seat of government for most of its history. " * 3
ATTEMPT = "INSERT INTO attempts (job, item, entry, repeat, attempt, epoch, started) VALUES (?, ?, ?, ?, ?, ?, ?)"


def measure_journal(bench: Bench) -> list[Row]:
    """Measure attempts and results written to SQLite, each acknowledged only once it is on disk."""
    samples = bench.measure_in_turns(
        {"floor": lambda s: _measure_bare(bench.folder, s), "fanout": lambda s: asyncio.run(_measure_fanout(bench.folder, s))}
    )
    return [Row.from_samples("batch records", "1/s", samples, against="ratio", must=MIN_RATIO, is_lower_bound=True)]


def _make_record() -> str:
    completion = Completion(
        (Choice(Answer(ANSWER), "stop"),), Usage(20, 60, raw={"prompt_tokens": 20, "completion_tokens": 60})
    )
    timing = Timing(0.001, None, 0.8, 0.81, 1)
    return StoredOutcome("m", "m", "up", "m-1", completion, timing=timing, cost=Cost(0.001, "providers.json")).to_json()


def _make_end(unit: Unit, epoch: int, record: str) -> UnitEnded:
    return UnitEnded(
        *(unit, 1, epoch, time.time(), "m", "answered", record),
        WorkTotals(1, 20, 60, cost_usd=0.001, attempts=1, total_ms=810),
        text=ANSWER,
    )


async def _prepare_store(folder: Path) -> tuple[Path, str]:
    path = folder / f"journal-{time.monotonic_ns()}.db"
    return path, JobSpec().to_json()


async def _measure_fanout(folder: Path, seconds: float) -> float:
    """Return the records Fanout writes in a second."""
    path, spec = await _prepare_store(folder)
    async with open_store(str(path)) as store:
        assert store
        jobs = JobStore(store.database)
        number, epoch = await jobs.create(NewJobRow("job_x", 0.0, account_id="", spec=spec, fingerprint="{}"), "bench")
        record, items, began = _make_record(), iter(range(10**9)), time.monotonic()
        written = 0

        async def work() -> None:
            nonlocal written
            while time.monotonic() - began < seconds:
                unit = Unit(number, next(items), 0, 0)
                await jobs.journal.put(AttemptStarted(unit, 1, epoch, time.time()))
                await jobs.journal.put(_make_end(unit, epoch, record))
                written += 2

        async with jobs.journal.run():
            await asyncio.gather(*(work() for _ in range(WRITERS)))
        return written / (time.monotonic() - began)


def _measure_bare(folder: Path, seconds: float) -> float:
    """Return the records written in a second with the same rows and durability by bare SQL."""
    path, _ = asyncio.run(_prepare_store(folder))
    asyncio.run(_create_schema(path))
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    columns = [row[1] for row in connection.execute("PRAGMA table_info(units)")]
    insert = f"INSERT INTO units ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    record, began, written = _make_record(), time.monotonic(), 0
    items: Iterator[int] = iter(range(10**9))
    while time.monotonic() - began < seconds:
        units = [Unit(1, next(items), 0, 0) for _ in range(TRANSACTION_ROWS)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(ATTEMPT, [(*unit, 1, 1, time.time()) for unit in units])
        connection.execute("COMMIT")
        rows = [_to_columns(_make_end(unit, 1, record), columns) for unit in units]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")
        written += 2 * TRANSACTION_ROWS
    connection.close()
    return written / (time.monotonic() - began)


async def _create_schema(path: Path) -> None:
    async with open_store(str(path)):
        pass


def _to_columns(ended: UnitEnded, columns: list[str]) -> tuple[Any, ...]:
    known: dict[str, Any] = {**ended.unit._asdict(), "state": "done", "attempt": 1, "ended": ended.at, "model": "m"}
    known |= {"result": "answered", "input_tokens": 20, "output_tokens": 60, "cost_usd": 0.001, "total_ms": 810}
    known |= {"answer": b"0123456789abcdef", "record": ended.record}
    return tuple(known.get(name) for name in columns)


def measure_job(bench: Bench) -> list[Row]:
    """Measure a job from creation to end, compared with bare calls that store nothing."""
    prompts, models, concurrency = (1_000 if bench.quick else 25_000), 4, 64
    python = shlex.quote(sys.executable)
    templates = {
        "floor": f"{python} {FOLDER / 'client_floor.py'} {{upstream}} {{prompts}} {{models}} {{concurrency}}",
        "fanout": f"{python} {FOLDER / 'job_alone.py'} {{config}} {{store}} {{prompts}} {{models}} {{concurrency}}",
    }
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in templates}
    with run_upstream(bench) as to:
        values: dict[str, Any] = {"upstream": to.url, "config": write_providers_file(bench, to, attempts=3)}
        values |= {"prompts": prompts, "models": models, "concurrency": concurrency}
        for turn in range(bench.repeats if bench.quick else 2):
            for name in templates if turn % 2 == 0 else reversed(templates):
                store = bench.folder / f"{time.monotonic_ns()}.db"
                samples[name].append(run_to_end(bench, templates[name], values | {"store": store}))
    last, units = samples["fanout"][-1], prompts * models
    cpu_us = extract(samples, lambda run: run["cpu_s"] * 1e6 / run["calls"])
    errors = sum(run["errors"] for of in samples.values() for run in of)
    rest: dict[str, Any] = {"errors": errors, "rss_mb": last["rss_mb"]}
    return [
        Row.from_samples(*(f"job of {units:,} units: CPU per unit", "µs", cpu_us), against="ratio", must=2.0, aim=1.5, **rest),
        Row(
            *("job: units a second", "1/s", median(run["calls"] / run["wall_s"] for run in samples["fanout"])),
            must=None if bench.quick else 3_000,
            aim=5_000,
            is_lower_bound=True,
            samples=samples,
            **rest,
        ),
        Row(
            "job: RSS at its end, over that after a tenth", "MB", last["rss_mb"], last["rss_early_mb"], against="added", **rest
        ),
        Row("job: store", "MB", last["store_mb"], **rest),
    ]


def measure_models(bench: Bench) -> list[Row]:
    """Measure a job of the same number of calls with few models and with many: the cost of a call must not grow."""
    units, few, many = (2_000 if bench.quick else 20_000), 10, 500
    template = f"{shlex.quote(sys.executable)} {FOLDER / 'job_alone.py'} {{config}} {{store}} {{prompts}} {{models}} 64"
    samples: dict[str, list[dict[str, Any]]] = {"few": [], "many": []}
    with run_upstream(bench) as to:
        config = write_providers_file(bench, to, attempts=3, count=many)
        for _ in range(bench.repeats if bench.quick else 1):
            for name, models in (("few", few), ("many", many)):
                store = bench.folder / f"{time.monotonic_ns()}.db"
                values = {"config": config, "store": store, "prompts": units // models, "models": models}
                samples[name].append(run_to_end(bench, template, values))
    cpu_us = extract(samples, lambda run: run["cpu_s"] * 1e6 / run["calls"])
    errors = sum(run["errors"] for of in samples.values() for run in of)
    costs = {"floor": cpu_us["few"], "fanout": cpu_us["many"]}
    name = f"job: CPU per unit, {many} models over {few}"
    return [Row.from_samples(name, "µs", costs, against="ratio", must=MAX_GROWTH, errors=errors)]
