"""Processes that run jobs and can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fanout.jobs import executor
from fanout.jobs.job import Job
from fanout.observability import logs
from tests.support.builders.jobs import open_jobs

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def run_job(url: str, folder: str, job: str, store: str | None) -> None:
    """Run a job in a process of its own until it ends or is killed."""
    logs.configure("error", "json")
    asyncio.run(_run_job(url, Path(folder), job, store))


async def _run_job(url: str, folder: Path, job: str, store: str | None) -> None:
    async with open_jobs(url, folder, store=store) as opened:
        await opened.manager.run(job)


def start_process(url: str, folder: Path, job: Job, store: str | None = None) -> BaseProcess:
    process = PROCESSES.Process(target=run_job, args=(url, str(folder), job.id, store))
    process.start()
    return process


def run_waiting_jobs(url: str, folder: str, store: str, row: Mapping[str, Any]) -> None:
    """Run a store's waiting jobs in a process of its own until SIGTERM."""
    logs.configure("error", "json")
    executor.POLL_INTERVAL_S = 0.2
    asyncio.run(_run_waiting_jobs(url, Path(folder), store, row))


async def _run_waiting_jobs(url: str, folder: Path, store: str, row: Mapping[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    own = folder / str(os.getpid())  # for several of them write their providers' file at once
    own.mkdir()
    async with open_jobs(url, own, store=store, run_waiting=True, **row):
        await stop.wait()


def start_worker(url: str, folder: Path, store: str, **row: Any) -> BaseProcess:
    process = PROCESSES.Process(target=run_waiting_jobs, args=(url, str(folder), store, row))
    process.start()
    return process


async def kill(process: BaseProcess) -> None:
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.join)
