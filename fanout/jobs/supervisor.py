"""Supervisor of unattended jobs: starts those that wait, and resumes those whose process has gone."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from fanout.core.errors import FanoutError, LeaseLostError, StoreError
from fanout.jobs.executor import JobExecutor
from fanout.jobs.job import OPEN_STATES, Job
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.leases import LEASE_S
from fanout.store.jobs.records import JobChange

MAX_RUNNING_JOBS = 4
"""Jobs that one process runs at once; further ones stay queued."""
POLL_INTERVAL_S = 2.0
"""How often the store is searched for jobs that no process has."""
MAX_LISTED_JOBS = 1_000


class JobSupervisor:
    """Background task that runs the store's unattended jobs."""

    def __init__(self, store: JobStore, executor: JobExecutor, owner: str) -> None:
        self._store, self._executor, self._owner = store, executor, owner
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def notify(self) -> None:
        """Search at once: there may be a job to run."""
        self._wake.set()

    async def run(self) -> None:
        """Run jobs until cancelled; then leave them to the next process."""
        try:
            while True:
                try:
                    await self._start_free_jobs()
                except StoreError:
                    pass  # reported by whoever writes
                except Exception:  # else no job would ever be started any more
                    log.exception("job.search_crashed")
                self._wake.clear()
                with suppress(TimeoutError):  # other processes create jobs too, and do not notify this one
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await self._wake.wait()
        finally:
            # Calls in flight are paid for: they end, and their results are written, before the process does.
            self._executor.leave()
            await self.wait_until_idle()

    async def wait_until_idle(self) -> None:
        """Return once no job runs that was started here."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def discard_abandoned(self) -> None:
        """Discard jobs whose creation was cut off."""
        for row in await self._store.list_jobs(limit=MAX_LISTED_JOBS, states=("loading",)):
            job = Job.from_row(row)
            # One without an owner may have been created this moment.
            if job.is_free and (job.owner or job.created < time.time() - LEASE_S):
                await self._store.discard(job.number)

    async def run_job(self, job: Job) -> None:
        """Run one job; a failure stops it, with the reason where it can be written."""
        try:
            await self._executor.run(job.id)
        except LeaseLostError:
            log.warning("job.lease_lost", job=job.id)
        except FanoutError as error:
            log.error("job.failed", job=job.id, reason=str(error))
            await self._stop(job, str(error))
        except Exception:  # else it would be started again and again, and its first calls paid for each time
            log.exception("job.crashed", job=job.id)
            await self._stop(job, "Fanout could not run it; its log has the details")

    async def _start_free_jobs(self) -> None:
        if self._executor.is_leaving:
            return
        await self.discard_abandoned()
        for row in reversed(await self._store.list_jobs(limit=MAX_LISTED_JOBS, states=OPEN_STATES)):  # the oldest first
            job = Job.from_row(row)
            if job.is_free and job.spec.unattended and job.number not in self._tasks and len(self._tasks) < MAX_RUNNING_JOBS:
                task = asyncio.create_task(self.run_job(job), name=f"job {job.id}")
                self._tasks[job.number] = task
                task.add_done_callback(partial(self._forget, job.number))

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)
        self._wake.set()

    async def _stop(self, job: Job, reason: str) -> None:
        """Stop a job, unless another process has it by now."""
        stopped: JobChange = {"state": "stopped", "reason": reason, "ended": time.time(), "owner": None, "rate": None}
        with suppress(StoreError):
            await self._store.update(job.number, stopped, states=("queued", "running"), dead_owners=[self._owner])
