"""A whole batch job on the embedded store, with every attempt and every answer on disk.

usage: job_alone.py PROVIDERS_JSON STORE PROMPTS MODELS CONCURRENCY
       prints {"calls": …, "cpu_s": …, "wall_s": …, "rss_mb": …, "rss_early_mb": …, "store_mb": …, "errors": …}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from floor import freeze
from machine import rss_mb

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.jobs.worker import JobWorker
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import open_store


async def main() -> None:
    config, store, *numbers = sys.argv[1:]
    prompts, models, concurrency = map(int, numbers)
    early_mb = 0.0

    async def measure_early(worker: JobWorker) -> None:
        """Measure memory when a tenth is done: from there on it must not grow."""
        nonlocal early_mb
        while worker.progress.ended < worker.job.units / 10:
            await asyncio.sleep(0.05)
        early_mb = rss_mb("self")

    tasks: list[asyncio.Task[None]] = []
    async with open_store(store) as opened, open_dispatcher(load_settings(Path(config))) as dispatcher:
        assert opened
        async with open_job_manager(JobStore(opened.database), dispatcher) as manager:
            freeze()
            start_s, began = time.process_time(), time.monotonic()
            spec = JobSpec(
                models=tuple({"model": f"m{model}"} for model in range(models)),
                parameters={"max_tokens": 50, "temperature": 0.7},
                concurrency=concurrency,
            )
            rows = (
                InputRow(prompt + 1, {"prompt": f"Prompt {prompt}: what is the capital of France?"})
                for prompt in range(prompts)
            )
            job = await manager.create(spec, rows)
            job = await manager.run(job.id, lambda worker: tasks.append(asyncio.create_task(measure_early(worker))))
            cpu_s, wall_s = time.process_time() - start_s, time.monotonic() - began
            await asyncio.gather(*tasks)
            progress = await manager.read_progress(job.id)
    result = {"calls": job.units, "cpu_s": cpu_s, "wall_s": wall_s, "rss_mb": rss_mb("self"), "rss_early_mb": early_mb}
    errors = job.units - progress.answered
    print(json.dumps(result | {"store_mb": os.path.getsize(store) / 2**20, "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main())
