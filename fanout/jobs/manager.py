"""Manager of jobs: creates, runs, cancels, resumes and retries them, and answers how far they are."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Unpack

from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.estimate import JobEstimate
from fanout.jobs.executor import JobExecutor, JobSupervisor, OnStart
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.intake import JobCreator
from fanout.jobs.job import (
    ENDED_STATES,
    Job,
    JobKind,
    JobSpec,
    Progress,
    RequestBuilderFactory,
    SpecChange,
    find_job,
    read_counts,
    wrong_state,
)
from fanout.jobs.planner import JobPlanner
from fanout.jobs.process_identity import current_process
from fanout.jobs.scoring import AnswerScorerFactory
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import JobChange, JobState


class JobManager:
    """The jobs of a store, and those of them that this process runs. Open one with `open_job_manager`."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        builders: Mapping[JobKind, RequestBuilderFactory] | None = None,
        owner: str | None = None,
        open_scorer: AnswerScorerFactory | None = None,
    ) -> None:
        owner = owner or current_process()
        self._store = store
        self.planner = JobPlanner(dispatcher, builders)
        self._creator = JobCreator(store, self.planner, owner)
        self.executor = JobExecutor(store, self.planner, owner, open_scorer)
        self.supervisor = JobSupervisor(store, self.executor, owner)

    async def create(
        self,
        spec: JobSpec,
        rows: Iterable[InputRow | BadRow],
        *,
        account_id: str | None = None,
        job_id: str | None = None,
        forked_from: str | None = None,
    ) -> Job:
        """Create a job: validate and keep its whole input, read in a thread. Nothing of it is sent before `run`.

        Raises:
            RequestError: with every bad row and its line, up to `MAX_FAULTS`; nothing is kept.
        """
        job_id = job_id or f"job_{uuid.uuid4().hex}"
        await self._creator.create(spec, rows, account_id=account_id or "", job_id=job_id, forked_from=forked_from)
        return await self.find_job(job_id)

    async def estimate(self, spec: JobSpec, rows: Iterable[InputRow | BadRow]) -> JobEstimate:
        """Return the estimate of a job; nothing of it is kept or sent. A bad input is refused as by `create`."""
        return await self._creator.estimate(spec, rows)

    async def find_job(self, job_id: str, account_id: str | None = None) -> Job:
        """Return the job of an id, or raise `RequestError` if the account, or without one nobody, has it."""
        return await find_job(self._store, job_id, account_id)

    async def list_jobs(
        self,
        *,
        limit: int,
        before: float | None = None,
        account_id: str | None = None,
        prefix: str = "",
        states: Sequence[JobState] = (),
    ) -> list[Job]:
        """Return the newest jobs first; see `JobStore.list_jobs`."""
        rows = await self._store.list_jobs(limit=limit, before=before, account_id=account_id, prefix=prefix, states=states)
        return [Job.from_row(row) for row in rows]

    async def read_progress(self, job_id: str) -> Progress:
        """Return the progress of a job, whichever process runs it."""
        job = await self.find_job(job_id)
        if worker := self.executor.workers.get(job.number):  # its sums are newer than those of the store
            return replace(worker.progress, job=job)
        return Progress(job, await read_counts(self._store, job))

    async def watch(self, job_id: str, every_s: float = 1.0) -> AsyncGenerator[Progress]:
        """Yield the progress of a job again and again until it has ended."""
        while True:
            progress = await self.read_progress(job_id)
            yield progress
            if progress.job.state in ENDED_STATES:
                return
            await asyncio.sleep(every_s)

    async def run(self, job_id: str, on_start: OnStart | None = None, *, wait: bool = False) -> Job:
        """Run a job to its end, in this process; `on_start` is called with its worker. See `JobExecutor.run`."""
        return await self.executor.run(job_id, on_start, wait=wait)

    async def cancel(self, job_id: str) -> Progress:
        """Send nothing more of a job; calls in flight are waited for. A job that has ended stays as it is.

        Of one whose input is still read nothing is complete, so nothing is kept.
        """
        job = await self.find_job(job_id)
        if job.state == "loading":  # its loading ends when it finds no job
            await self._store.discard(job.number)
            return Progress(replace(job, state="cancelled", reason="it was cancelled", ended=time.time()), {})
        if job.is_free:  # no process would see `cancelling`, so the job is ended here
            change: JobChange = {"state": "cancelled", "reason": "it was cancelled", "ended": time.time()}
            await self._store.update(job.number, change, states=("queued", "running", "cancelling", "stopped"))
        else:
            # Written first: a worker in another process finds it when it renews its lease.
            await self._store.update(job.number, {"state": "cancelling"}, states=("queued", "running"))
            if worker := self.executor.workers.get(job.number):
                worker.stop("cancelled", "it was cancelled")
        return await self.read_progress(job_id)

    async def resume(self, job_id: str, *, fork: bool = False, **changes: Unpack[SpecChange]) -> Job:
        """Queue a job that was stopped, cancelled, expired or cut off; or `fork` it, to send everything anew in a new job.

        Raises:
            RequestError: it is done, or runs, or has changed: with every difference.
        """
        job = await self.find_job(job_id)
        spec = _drop_past_deadline(replace(job.spec, **changes))
        if fork:  # whatever the old job's state: it stays as it is
            job_id = await self._creator.fork(job, spec)
            self.supervisor.notify()
            return await self.find_job(job_id)
        if job.state == "done":
            raise wrong_state(f"job `{job_id}` is done; `retry` asks again what has failed")
        if job.state == "loading" or not job.is_free:
            raise wrong_state(f"job `{job_id}` is {job.state}; it need not be resumed")
        self.planner.require_unchanged(job)
        await self._queue(job, spec)
        return await self.find_job(job_id)

    async def retry(self, job_id: str, kinds: Sequence[str] = (), **changes: Unpack[SpecChange]) -> Job:
        """Send again the units that have failed, only those of some kinds if any are given.

        Raises:
            RequestError: it runs, or it has changed: with every difference.
        """
        job = await self.find_job(job_id)
        if job.state not in ENDED_STATES:
            raise wrong_state(f"job `{job_id}` is {job.state}; cancel it first, or wait for its end")
        self.planner.require_unchanged(job)  # before anything is reopened: a refused retry must leave the job as it was
        if await self._store.journal.reopen(job.number, kinds, states=(job.state,)) is None:
            raise wrong_state(f"job `{job.id}` is no longer {job.state}")
        await self._queue(job, _drop_past_deadline(replace(job.spec, **changes)))
        return await self.find_job(job_id)

    async def _queue(self, job: Job, spec: JobSpec) -> None:
        queued: JobChange = {"state": "queued", "reason": None, "ended": None, "owner": None, "spec": spec.to_json()}
        # Only from the state it was read in: of two callers that resume a job at once, one gets an error.
        if not await self._store.update(job.number, queued, states=(job.state,), dead_owners=job.dead_owners):
            raise wrong_state(f"job `{job.id}` is no longer {job.state}")
        self.supervisor.notify()


def _drop_past_deadline(spec: JobSpec) -> JobSpec:
    """Return a specification without a deadline that has passed: a job resumed with it would expire at once."""
    return replace(spec, deadline=None) if spec.deadline is not None and spec.deadline <= time.time() else spec


@asynccontextmanager
async def open_job_manager(
    store: JobStore,
    dispatcher: Dispatcher,
    builders: Mapping[JobKind, RequestBuilderFactory] | None = None,
    *,
    run_waiting: bool = False,
    owner: str | None = None,
    open_scorer: AnswerScorerFactory | None = None,
) -> AsyncGenerator[JobManager]:
    """Open a manager; at the end its running jobs are left to the next process.

    With `run_waiting` it also runs the unattended jobs that no process has. `owner` is this process's identity in leases.
    `open_scorer` opens the scorers that a job declares; without it answers are not scored as they end.
    """
    manager = JobManager(store, dispatcher, builders, owner, open_scorer)
    async with store.journal.run():  # ends last: calls in flight at the end still write their results
        task = asyncio.create_task(manager.supervisor.run(), name="jobs") if run_waiting else None
        try:
            yield manager
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
