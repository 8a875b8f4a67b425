"""Manager of jobs: creates, runs, cancels, resumes and retries them, and reports their progress."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn, Unpack

from fanout.core.threads import run_in_thread
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.answer_scorer import AnswerScorerFactory
from fanout.jobs.claims import is_shared
from fanout.jobs.estimate import JobEstimate
from fanout.jobs.executor import JobExecutor, JobSupervisor, OnStart
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.intake import JobCreator
from fanout.jobs.job import (
    Job,
    JobKind,
    JobSpec,
    Progress,
    RequestBuilderFactory,
    SpecChange,
    build_state_error,
    find_job,
)
from fanout.jobs.job_progress import read_progress_of
from fanout.jobs.key_gate import OpenKeyGate
from fanout.jobs.planner import JobPlanner
from fanout.jobs.process_identity import identify_process
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ENDED_STATES, OPEN_STATES, RUNNING_STATES, JobChange, JobRow, JobState


class JobManager:
    """Jobs in a store, and control of those running in this process. Open a manager with `open_job_manager`."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        builders: Mapping[JobKind, RequestBuilderFactory] | None = None,
        owner: str | None = None,
        open_scorer: AnswerScorerFactory | None = None,
        open_gate: OpenKeyGate | None = None,
    ) -> None:
        owner = owner or identify_process()
        self._store = store
        self.planner = JobPlanner(dispatcher, builders)
        self._creator = JobCreator(store, self.planner, owner)
        self.executor = JobExecutor(store, self.planner, owner, open_scorer, open_gate)
        self.on_cancel: Callable[[int], Awaitable[None]] | None = None
        """Tells other processes of this server at once that a job, by its number, was cancelled."""
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
        """Create a job: read its whole input in a thread, validate it and store it. Nothing is sent before `run`.

        Raises:
            RequestError: names every bad row and its line, up to `MAX_FAULTS`; nothing is stored.
        """
        job_id, spec = job_id or f"job_{uuid.uuid4().hex}", self.planner.write_out(spec)
        await self._creator.create(spec, rows, account_id=account_id or "", job_id=job_id, forked_from=forked_from)
        return await self.find_job(job_id)

    def stop_loading(self) -> None:
        """Give up all inputs that are being read, and those to come: `create` and `estimate` raise `StoppingError`."""
        self._creator.stop()

    async def estimate(self, spec: JobSpec, rows: Iterable[InputRow | BadRow]) -> JobEstimate:
        """Return the estimate of a job without storing or sending anything.

        `create` refuses the same inputs, and models without a key.
        """
        return await self._creator.estimate(self.planner.write_out(spec), rows)

    async def find_job(self, job_id: str, account_id: str | None = None) -> Job:
        """Return a job by its id.

        Args:
            job_id: its id.
            account_id: the account that must have it; `None`: any account.

        Raises:
            RequestError: there is no such job, or another account has it.
        """
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
        """Return jobs, the newest first; see `JobStore.list_jobs`."""
        found: list[Job] = []
        stored = {*states, *RUNNING_STATES} if states else ()
        while True:
            rows = await self._store.list_jobs(
                limit=limit, before=before, account_id=account_id, prefix=prefix, states=[*stored]
            )
            listed = [job.as_left for job in await _read_rows(rows)]
            found += [job for job in listed if not states or job.state in states]
            if len(found) >= limit or len(rows) < limit:
                return found[:limit]
            before = rows[-1].created

    async def read_progress(self, job_id: str) -> Progress:
        """Return the progress of a job, whichever process runs it."""
        (progress,) = await self.read_progress_of([await self.find_job(job_id)])
        return progress

    async def read_progress_of(self, jobs: Sequence[Job]) -> list[Progress]:
        """Return the progress of each job, whichever processes run it."""
        return await read_progress_of(self._store, self.executor.workers, jobs)

    async def find_progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        """Return the progress of those of some jobs that there are, by id."""
        jobs = await _read_rows(await self._store.find_all(job_ids))
        return {progress.job.id: progress for progress in await self.read_progress_of(jobs)}

    async def watch(self, job_id: str, every_s: float = 1.0) -> AsyncGenerator[Progress]:
        """Yield the progress of a job every `every_s` seconds until the job has ended."""
        while True:
            progress = await self.read_progress(job_id)
            yield progress
            if progress.job.state in ENDED_STATES:
                return
            await asyncio.sleep(every_s)

    async def run(self, job_id: str, on_start: OnStart | None = None, *, wait: bool = False) -> Job:
        """Run a job to its end in this process; call `on_start` with its worker. See `JobExecutor.run`."""
        return await self.executor.run(job_id, on_start, wait=wait)

    async def cancel(self, job_id: str) -> Progress:
        """Stop sending units of a job; its calls in flight are awaited. A job that has ended does not change.

        A job whose input is still being read is discarded, because its input is incomplete.
        """
        job = await self.find_job(job_id)
        if job.state == "loading":  # the reader of its input stops at its next write
            await self._store.discard(job.number)
            return Progress(replace(job, state="cancelled", reason="it was cancelled", ended=time.time()), {})
        shared = is_shared(self._store, job) and job.state in OPEN_STATES
        if job.is_free and not shared:  # no process would see `cancelling`, so the job is ended here
            change: JobChange = {"state": "cancelled", "reason": "it was cancelled", "ended": time.time()}
            await self._store.update(job.number, change, states=("queued", "running", "cancelling", "stopped"))
        else:
            # Written first: a worker in another process finds it when it renews its lease.
            await self._store.update(job.number, {"state": "cancelling"}, states=("queued", "running"))
            self.stop_here(job.number)
            if self.on_cancel:
                await self.on_cancel(job.number)
            if shared:  # of those that share it, the last one ends it; where there is none, this does
                await self._store.chunks.close(job.number, job.dead_owners)
        return await self.read_progress(job_id)

    def stop_here(self, number: int) -> None:
        """Stop a job that was cancelled, if this process runs it."""
        if worker := self.executor.workers.get(number):
            worker.stop("cancelled", "it was cancelled")

    async def resume(self, job_id: str, *, fork: bool = False, **changes: Unpack[SpecChange]) -> Job:
        """Queue a job that was stopped, cancelled, expired or interrupted; with `fork`, send its whole input in a new job.

        Raises:
            RequestError: the job is done or running, or its models have changed; every difference is named.
        """
        job = await self.find_job(job_id)
        spec = _drop_past_deadline(replace(job.spec, **changes), await self._store.read_clock())
        if fork:  # allowed in every state: the old job does not change
            job_id = await self._creator.fork(job, spec)
            self.supervisor.notify()
            return await self.find_job(job_id)
        if job.state == "done":
            raise build_state_error(f"job `{job_id}` is done; `retry` sends its failed units again")
        if job.state == "loading" or not job.is_free:
            raise build_state_error(f"job `{job_id}` is {job.state}; there is nothing to resume")
        self.planner.require_unchanged_models(job)
        await self._queue(job, spec)
        return await self.find_job(job_id)

    async def retry(self, job_id: str, kinds: Sequence[str] = (), **changes: Unpack[SpecChange]) -> Job:
        """Send failed units again; if `kinds` are given, only units that failed in one of these ways.

        Raises:
            RequestError: the job is running, or its models have changed; every difference is named.
        """
        job = await self.find_job(job_id)
        is_cancelled = job.as_left.state == "cancelled"  # by a process that did not live to write its end
        if job.state not in ENDED_STATES and not is_cancelled:
            advice = "resume or cancel it first" if job.is_free else "cancel it first, or wait until it ends"
            raise build_state_error(f"job `{job_id}` is {'unfinished' if job.is_free else job.state}; {advice}")
        self.planner.require_unchanged_models(job)  # before anything is reopened: a refused retry must leave the job as it was
        if await self._store.journal.reopen(job.number, kinds, states=_list_states(job)) is None:
            await self._refuse_changed_models(job)
        await self._queue(job, _drop_past_deadline(replace(job.spec, **changes), await self._store.read_clock()))
        return await self.find_job(job_id)

    async def _queue(self, job: Job, spec: JobSpec) -> None:
        # Only from the state read above: of two callers that resume the job at the same time, one gets an error.
        if not await self._store.queue(job.number, spec.to_json(), states=_list_states(job), dead_owners=job.dead_owners):
            await self._refuse_changed_models(job)
        self.supervisor.notify()

    async def _refuse_changed_models(self, job: Job) -> NoReturn:
        now = await self.find_job(job.id)
        raise build_state_error(f"job `{job.id}` was {job.state} and is {now.state} now: another process has it")


async def _read_rows(rows: Sequence[JobRow]) -> list[Job]:
    # In a thread: a hundred specifications and fingerprints take some milliseconds to parse.
    return await run_in_thread("answers", lambda: [Job.from_row(row) for row in rows])


def _list_states(job: Job) -> Sequence[JobState]:
    """Return the states in which a job that was read is still as it was."""
    # One that was left is shown as ended before that is written, perhaps at this moment.
    left = job.as_left.state
    return (job.state, left) if left in ENDED_STATES else (job.state,)


def _drop_past_deadline(spec: JobSpec, now: float) -> JobSpec:
    """Drop a deadline that has passed, because a job resumed with it would expire at once."""
    return replace(spec, deadline=None) if spec.deadline is not None and spec.deadline <= now else spec


@asynccontextmanager
async def open_job_manager(
    store: JobStore,
    dispatcher: Dispatcher,
    builders: Mapping[JobKind, RequestBuilderFactory] | None = None,
    *,
    run_waiting: bool = False,
    owner: str | None = None,
    open_scorer: AnswerScorerFactory | None = None,
    open_gate: OpenKeyGate | None = None,
    may_take: Callable[[Job], bool] | None = None,
) -> AsyncGenerator[JobManager]:
    """Open a manager; when it closes, another process may resume its running jobs.

    With `run_waiting`, it also runs unattended jobs that no other process runs. `owner` identifies this process in leases.
    `open_scorer` opens the scorers that a job declares; without `open_scorer`, answers are not scored as they arrive.
    `open_gate` opens the limits of the key that a job was made with. `may_take` chooses among the waiting jobs.
    """
    manager = JobManager(store, dispatcher, builders, owner, open_scorer, open_gate)
    if may_take:
        manager.supervisor.may_take = may_take
    async with store.journal.run():  # ends last: calls in flight at the end still write their results
        task = asyncio.create_task(manager.supervisor.run(), name="jobs") if run_waiting else None
        try:
            yield manager
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
