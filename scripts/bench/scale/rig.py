"""Workers on one PostgreSQL in front of an upstream that counts, and one job that they share."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncpg
from cluster import Cluster, run_cluster
from machine import find_free_port, measure_cpu_s, rss_mb
from servers import CHECKOUT, NO_LIMIT, compile_upstream

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import open_store

POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
COUNT = "SELECT count(*) FROM units WHERE state <> 'open'"
SUMMARY = """
SELECT count(*), count(DISTINCT (job, item, entry, repeat)), count(*) FILTER (WHERE result = 'answered'),
    (SELECT count(*) FROM attempts), (SELECT count(*) FROM failures)
FROM units"""


@dataclass
class Rig:
    """A cluster, an upstream and the workers between them."""

    cluster: Cluster
    folder: Path
    upstream_port: int
    config: Path
    environ: Mapping[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.cluster.url("bench")

    async def create_job(self, units: int, **spec: Any) -> Job:
        """Plan a job of so many short prompts, for whoever works."""
        rows = (InputRow(number + 1, {"prompt": f"Prompt {number}: which city is it?"}) for number in range(units))
        environ = {"HOME": str(self.folder), "BENCH_KEY": "bench"}
        async with open_store(self.url) as opened, open_dispatcher(load_settings(self.config, environ)) as dispatcher:
            assert opened
            async with open_job_manager(JobStore(opened.database), dispatcher) as manager:
                return await manager.create(JobSpec(models=({"model": "m0"},), unattended=True, **spec), rows)

    def start_workers(self, count: int, ports: tuple[int, ...] = ()) -> None:
        """Start workers up to so many; they take turns in reaching the database by `ports`, of proxies to it."""
        for place in range(len(self.workers), count):
            self.urls.append(self.cluster.url("bench", ports[place % len(ports)] if ports else None))
            self.workers.append(self._spawn(place))

    def kill(self, place: int) -> None:
        """Kill a worker, and start another one in its place."""
        self.workers[place].kill()
        self.workers[place].wait()
        self.workers[place] = self._spawn(place)

    def restart_ended(self) -> int:
        """Start those again that have ended, as a supervisor does; return their number."""
        ended = [place for place, worker in enumerate(self.workers) if worker.poll() is not None]
        for place in ended:
            self.workers[place] = self._spawn(place)
        return len(ended)

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(20)
            worker.kill()
            worker.wait()
        self.workers.clear()
        self.urls.clear()

    def _spawn(self, place: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fanout", "worker", "--config", str(self.config)]
        environ = {**self.environ, "FANOUT_STORE": self.urls[place]}
        with (self.folder / f"worker-{place}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=CHECKOUT)

    def memory_mb(self) -> list[int]:
        """Return the resident memory of each worker."""
        found: list[int] = []
        for worker in self.workers:
            with suppress(OSError, IndexError):
                found.append(round(rss_mb(worker.pid)))
        return found

    def workers_cpu_s(self) -> float:
        """Return the processor time that the workers have used."""
        return sum(measure_cpu_s(worker.pid) for worker in self.workers)

    async def fetch(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.url, timeout=10)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            with suppress(*POSTGRES_ERRORS):
                await connection.close(timeout=5)

    async def count_ended(self) -> int | None:
        """Return the units that have ended; `None` while the database does not answer."""
        with suppress(*POSTGRES_ERRORS):
            return int((await self.fetch(COUNT))[0][0])
        return None

    async def measure_rate(self, seconds: float) -> float:
        """Return the units that end in a second, from now on."""
        before, began = await self.count_ended(), time.monotonic()
        await asyncio.sleep(seconds)
        after = await self.count_ended()
        assert before is not None
        assert after is not None
        return (after - before) / (time.monotonic() - began)

    async def summarize(self) -> dict[str, int]:
        """Return the records of all jobs, and what the upstream has counted."""
        records, distinct, answered, attempts, failures = (await self.fetch(SUMMARY))[0]
        calls = self.count_calls()
        return {
            "records": records,
            "distinct": distinct,
            "answered": answered,
            "attempts": attempts,
            "failed_attempts": failures,
            "cut_off_attempts": attempts - failures - answered,
            "calls": calls["requests"],
            "most_calls_at_once": calls["at_once"],
        }

    def count_calls(self) -> dict[str, int]:
        found: dict[str, int] = self._ask_upstream("counts")
        return found

    def count_window(self, seconds: float) -> int:
        """Return the most requests that came to the upstream within any so many seconds."""
        return int(self._ask_upstream(f"windows/{seconds * 1000:g}")["requests"])

    def _ask_upstream(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.upstream_port}/{path}", timeout=10) as response:
            return json.load(response)

    def read_logs(self) -> str:
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("worker-*.log")))


@asynccontextmanager
async def open_rig(
    *, latency_ms: int, limits: Mapping[str, int] | None = None, providers: int = 1, **environ: str
) -> AsyncGenerator[Rig]:
    """Start a cluster with an empty database and an upstream; stop all of it at the end."""
    with run_cluster() as cluster, tempfile.TemporaryDirectory(prefix="fanout-bench-scale-") as name:
        folder = Path(name)
        compile_upstream(folder)
        port = find_free_port()
        upstream = subprocess.Popen([folder / "upstream", str(port), str(latency_ms)], stdin=subprocess.DEVNULL)
        config = _write_config(folder, port, {**NO_LIMIT, **(limits or {})}, providers)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FANOUT_")}
        given = {"BENCH_KEY": "bench", "HOME": str(folder), "FANOUT_LOG_LEVEL": "warning", **environ}
        rig = Rig(cluster, folder, port, config, {**kept, **given})
        try:
            connection = await asyncpg.connect(cluster.url())
            await connection.execute("CREATE DATABASE bench")
            await connection.close()
            connection = await asyncpg.connect(rig.url)
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await connection.close()
            yield rig
        finally:
            rig.stop_workers()
            upstream.kill()
            upstream.wait()


def _write_config(folder: Path, port: int, limits: Mapping[str, int], providers: int) -> Path:
    row = {
        "adapter": "openai",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "api_key_env": "BENCH_KEY",
        "limits": limits,
        "retries": {"attempts": 5},
    }
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    models = {f"m{n}": {"provider": f"up{n}", "id": f"m{n}", "kind": "chat", "price": price} for n in range(providers)}
    path = folder / "providers.json"
    path.write_text(json.dumps({"extends": False, "providers": {f"up{n}": row for n in range(providers)}, "models": models}))
    return path
