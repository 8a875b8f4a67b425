"""Execution of jobs in this process: on request, and in the background those that no process runs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial

from fanout.core.errors import FanoutError, LeaseLostError, StoreClosedError, StoreError
from fanout.core.lulls import LULLS
from fanout.jobs.answer_scorer import AnswerScorer, AnswerScorerFactory
from fanout.jobs.chunk_claims import ChunkClaims
from fanout.jobs.claims import Claim, WholeJob, is_shared
from fanout.jobs.job import Fingerprint, Job, build_state_error, find_job, read_counts
from fanout.jobs.key_gate import OpenKeyGate
from fanout.jobs.planner import JobPlanner
from fanout.jobs.worker import JobWorker
from fanout.observability import logs
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ENDED_STATES, OPEN_STATES, JobChange, JobState

MAX_FINAL_WRITES = 5
FINAL_WRITE_INTERVAL_S = 2.0
WATCH_INTERVAL_S = 0.5
"""Interval between checks of a job that another process runs."""
MAX_RUNNING_JOBS = 4  # in one process; further jobs stay queued
POLL_INTERVAL_S = 2.0
"""Interval between searches of the store for jobs that no process runs."""
MAX_LISTED_JOBS = 1_000
MAX_FAILED_RUNS = 3
"""Of a shared job in a row, here: the calls of each may have been charged in vain."""
OnStart = Callable[[JobWorker], None]


class JobExecutor:
    """The jobs that this process runs."""

    def __init__(
        self,
        store: JobStore,
        planner: JobPlanner,
        owner: str,
        open_scorer: AnswerScorerFactory | None = None,
        open_gate: OpenKeyGate | None = None,
    ) -> None:
        self._open_gate = open_gate
        self._store, self._planner, self._owner, self._open_scorer = store, planner, owner, open_scorer
        self.workers: dict[int, JobWorker] = {}
        # Jobs that this process runs or is about to take: its own lease would not stop it from running a job twice.
        self._taken: set[int] = set()
        self.is_leaving = False
        self.on_end: Callable[[Job], Awaitable[None]] | None = None
        """Awaited after the end of each job; it must not raise."""

    async def run(self, job_id: str, on_start: OnStart | None = None, *, wait: bool = False) -> Job:
        """Run a job to its end; with `wait`, first wait while another process runs the job.

        Raises:
            RequestError: there is no such job, it has ended, or the configuration of its models has changed.
            LeaseLostError: another process runs the job.
        """
        job = await self.work(job_id, on_start)
        if job is None and not wait:
            raise LeaseLostError
        if job is None or (job.state in OPEN_STATES and is_shared(self._store, job) and not self.is_leaving):
            return await self._wait_for_other(await find_job(self._store, job_id), on_start)
        return job

    async def work(self, job_id: str, on_start: OnStart | None = None) -> Job | None:
        """Run what this process can take of a job; `None`: other processes run all of it. Raises like `run`."""
        job = await find_job(self._store, job_id)
        if job.state in ENDED_STATES or job.state == "loading":
            raise build_state_error(f"job `{job_id}` is {job.state}")
        fingerprint = self._planner.require_unchanged_models(job)
        # Before the job is taken, so that unusable scorers do not change its state.
        scorer = await self._open_scorer(job) if self._open_scorer and job.spec.scorers else None
        if job.number in self._taken:
            return None
        self._taken.add(job.number)
        try:
            claim = await self._claim(job)
            if claim is None:
                return None
            try:
                return await self._run(job, claim, fingerprint, scorer, on_start)
            except BaseException:
                await claim.abandon()
                raise
        finally:
            self._taken.discard(job.number)

    async def _claim(self, job: Job) -> Claim | None:
        if is_shared(self._store, job):
            return ChunkClaims(self._store, job, self._owner)
        # A process of this machine is known to be dead, so its lease need not expire first.
        epoch = await self._store.leases.acquire(job.number, self._owner, dead_owners=job.dead_owners)
        return None if epoch is None else WholeJob(self._store, job, epoch)

    def leave(self) -> None:
        """Stop sending; leave each job to the next process once its calls in flight have ended."""
        self.is_leaving = True
        for worker in self.workers.values():
            worker.stop("queued", None)

    def poke(self, number: int, dead_owners: Iterable[str] = ()) -> None:
        """Have a job that runs here look at its chunks at once."""
        if (worker := self.workers.get(number)) and isinstance(worker.claim, ChunkClaims):
            worker.claim.poke(dead_owners)

    async def _run(
        self, job: Job, claim: Claim, fingerprint: Fingerprint, scorer: AnswerScorer | None, on_start: OnStart | None
    ) -> Job | None:
        """Run what was taken of a job, with the current limit groups, which are in the fingerprint."""
        if not await claim.start():
            return await self._leave(job, claim)
        # Read again, because only the lease stops other processes from changing the job.
        job = replace(await find_job(self._store, job.id), fingerprint=fingerprint)
        builder = self._planner.make_builder(job.spec, job.account_id)
        (counts,) = await read_counts(self._store, [job])
        gate = await self._open_gate(job.spec.key_id) if self._open_gate and job.spec.key_id else None
        worker = JobWorker(self._store, self._planner.dispatcher, job, claim, builder, counts, scorer, gate)
        self.workers[job.number] = worker
        if self.is_leaving:  # `leave` was called while the job was being taken, when there was no worker to stop yet
            worker.stop("queued", None)
        try:
            if on_start:
                on_start(worker)
            log.info("job.started", job=job.id, units=job.units, remaining=worker.progress.remaining)
            state, reason = await worker.run()
        finally:
            del self.workers[job.number]
            worker.close()
        return await self._finish(job, claim, state, reason)

    async def _leave(self, job: Job, claim: Claim) -> Job | None:
        """Leave a job of which there is nothing to run: it was cancelled meanwhile, or others run what is left."""
        if claim.is_shared:
            left = await self._finish(job, claim, "queued", None)
            return left if left.state in ENDED_STATES else None
        job = await find_job(self._store, job.id)
        if job.state == "cancelling":  # cancelled between reading the job and taking it
            return await self._finish(job, claim, "cancelled", "it was cancelled")
        await self._store.update(job.number, {"owner": None}, epoch=claim.get_fence(0).epoch)
        raise build_state_error(f"job `{job.id}` is {job.state}")

    async def _wait_for_other(self, job: Job, on_start: OnStart | None) -> Job:
        """Return a job at its end, even if another process runs it."""
        log.info("job.waited", job=job.id, owner=", ".join(job.owners))
        while not job.is_free:
            await asyncio.sleep(WATCH_INTERVAL_S)
            job = await find_job(self._store, job.id)
        return job if job.state in ENDED_STATES else await self.run(job.id, on_start, wait=True)

    async def _finish(self, job: Job, claim: Claim, state: JobState, reason: str | None) -> Job:
        """Write the end of a run; retry while the database cannot be written."""
        for _ in range(MAX_FINAL_WRITES):
            try:
                return await self._write_end(job, claim, state, reason)
            except StoreClosedError:
                raise
            except StoreError:
                await asyncio.sleep(FINAL_WRITE_INTERVAL_S)
        return await self._write_end(job, claim, state, reason)

    async def _write_end(self, job: Job, claim: Claim, state: JobState, reason: str | None) -> Job:
        has_ended = await claim.finish(state, reason)
        left = await find_job(self._store, job.id)
        if not has_ended:
            log.info("job.left", job=job.id, state=left.state)
            return left
        log.info("job.ended", job=job.id, state=left.state, reason=left.reason)
        if self.on_end:
            await self.on_end(left)
        return left


class JobSupervisor:
    """Background task that runs the store's unattended jobs."""

    def __init__(self, store: JobStore, executor: JobExecutor, owner: str) -> None:
        self._store, self._executor, self._owner = store, executor, owner
        self.may_take: Callable[[Job], bool] = lambda _: True
        """Choice among the jobs that no process has; those that are not taken are left to others."""
        self._tasks: dict[int, asyncio.Task[bool]] = {}
        self._failures: Counter[int] = Counter()
        """Runs in a row of shared jobs that ended because the database could not be used."""
        self._wake = asyncio.Event()

    def notify(self) -> None:
        """Search for jobs at once, instead of after the interval."""
        self._wake.set()

    async def run(self) -> None:
        """Run jobs until cancelled; then leave them to the next process."""
        chunks = self._store.chunks
        async with chunks.open_listener(self._hear) if chunks.are_used else nullcontext():
            await self._search_on()

    async def _search_on(self) -> None:
        try:
            while True:
                self._wake.clear()  # before the search, so that a notification during it leads to another search
                try:
                    await self._start_free_jobs()
                except StoreError:
                    pass  # the job that cannot write reports it
                except Exception:  # without this, no further job would ever be started
                    log.exception("job.search_crashed")
                try:
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await self._wake.wait()
                except TimeoutError:  # other processes create jobs too, and do not notify this one
                    await LULLS.wait()
        finally:
            # Calls in flight are charged anyway, so their results are awaited and written before the process ends.
            self._executor.leave()
            await self.wait_until_idle()

    async def wait_until_idle(self) -> None:
        """Return once all jobs started here have ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def discard_abandoned_jobs(self) -> None:
        """Discard jobs whose creation was interrupted."""
        for row in await self._store.list_jobs(limit=MAX_LISTED_JOBS, states=("loading",)):
            job = Job.from_row(row)
            if job.is_free:
                await self._store.discard(job.number)

    async def run_job(self, job: Job) -> bool:
        """Run one job, and return whether to look for another at once. Its log lines name its account.

        A failure stops the job and is recorded as its reason.
        """
        logs.account.set(job.account_id or None)
        started: list[JobWorker] = []
        has_run = True
        try:
            # If it has not, the next look would find the same, again and again.
            has_run = await self._executor.work(job.id, started.append) is not None
            self._failures.pop(job.number, None)
        except LeaseLostError:
            log.warning("job.lease_lost", job=job.id)
        except FanoutError as error:
            log.error("job.failed", job=job.id, reason=str(error))
            self._failures[job.number] += bool(started)
            # A process that is cut off from the database must not stop what the others go on with.
            if isinstance(error, StoreError) and is_shared(self._store, job) and self._failures[job.number] < MAX_FAILED_RUNS:
                return False
            del self._failures[job.number]
            await self._stop(job, str(error))
        except Exception:  # without this, the job would be restarted again and again, and its first calls charged each time
            log.exception("job.crashed", job=job.id)
            await self._stop(job, "Fanout could not run this job; its log has the details")
        return has_run

    async def _start_free_jobs(self) -> None:
        if self._executor.is_leaving or not await self._store.has_unended():
            return
        await self.discard_abandoned_jobs()
        rows = reversed(await self._store.list_jobs(limit=MAX_LISTED_JOBS, states=OPEN_STATES))  # the oldest first
        found = [job for job in map(Job.from_row, rows) if job.spec.unattended and self.may_take(job)]
        shared = [job.number for job in found if is_shared(self._store, job) and not job.is_free]
        dead_owners = {owner for job in found for owner in job.dead_owners}
        claimable = await self._store.chunks.list_claimable(shared, dead_owners) if shared else ()
        for number in claimable:
            self._executor.poke(number, dead_owners)
        for job in found:
            is_known = job.number in self._tasks or len(self._tasks) >= MAX_RUNNING_JOBS
            if (job.is_free or job.number in claimable) and not is_known:
                task = asyncio.create_task(self.run_job(job), name=f"job {job.id}")
                self._tasks[job.number] = task
                task.add_done_callback(partial(self._forget, job.number))

    def _hear(self, announced: str) -> None:
        """Look at a job about which another process, or this one, has announced something."""
        self._executor.poke(int(announced))
        self._wake.set()

    def _forget(self, number: int, task: asyncio.Task[bool]) -> None:
        self._tasks.pop(number, None)
        if not task.cancelled() and task.result():
            self._wake.set()

    async def _stop(self, job: Job, reason: str) -> None:
        """Stop a job, unless another process has taken it."""
        if is_shared(self._store, job):
            with suppress(StoreError):
                await self._store.chunks.request_end(job.number, "stopped", reason)
                await self._store.chunks.close(job.number, [self._owner])
            return
        stopped: JobChange = {"state": "stopped", "reason": reason, "ended": time.time(), "owner": None, "rate": None}
        with suppress(StoreError):
            await self._store.update(job.number, stopped, states=("queued", "running"), dead_owners=[self._owner])
