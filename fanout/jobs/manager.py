"""Keeps jobs: takes them in, runs them, lets them be stopped, resumed and tried again; goes on with those that were cut off."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fanout.core.errors import FanoutError, LeaseLostError, RequestError, StoreError
from fanout.core.faults import Fault
from fanout.core.schema import Call
from fanout.core.usage import WorkTotals
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.plan import Entry, Request
from fanout.jobs import config_fingerprint, process_identity
from fanout.jobs.estimate import Estimate
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.intake import Intake
from fanout.jobs.job import (
    ENDED_STATES,
    JOB_SPEC_JSON,
    Fingerprint,
    Job,
    JobKind,
    JobSpec,
    Progress,
    RequestBuilder,
    ResultGroup,
)
from fanout.jobs.job import FINGERPRINT_JSON as FINGERPRINTS
from fanout.jobs.row_request import make_row_request_builder
from fanout.jobs.worker import JobWorker
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.leases import LEASE_S
from fanout.store.jobs.records import JobChange, JobState, NewJobRow

MAX_RUNNING_JOBS = 4
"""That one process runs at once; further ones are queued."""
MAX_FINAL_WRITES = 5
"""How often a run's end is tried to be written."""
POLL_INTERVAL_S = 2.0
"""How often a server looks for jobs that nobody runs."""
COPY_CHUNK_ITEMS = 10_000
"""Items of a fork in one transaction: others want to write, too."""
EMPTY_ROW = '{"prompt":""}'
"""A row that asks nothing: what the models of a job stand for does not depend on it."""

RequestBuilderFactory = Callable[[JobSpec, str], RequestBuilder]
"""How the jobs of a kind are understood: of what a job asks, and its account."""


class JobManager:
    """The jobs of a store, and those of them that this process runs. Open one with `open_manager`."""

    def __init__(
        self, store: JobStore, dispatcher: Dispatcher, builders: Mapping[JobKind, RequestBuilderFactory] | None = None
    ) -> None:
        self._store, self._dispatcher = store, dispatcher
        self._builders = {"rows": make_row_request_builder, **(builders or {})}
        self._running: dict[int, JobWorker] = {}
        self._begun: set[int] = set()
        """Jobs that this process has, or is about to take."""
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._look = asyncio.Event()
        """There may be a job to run."""
        self._owner = process_identity.current_process()
        self._leaving = False

    # Taking in

    async def create(
        self,
        spec: JobSpec,
        rows: Iterable[InputRow | BadRow],
        *,
        account_id: str | None = None,
        prefix: str = "job_",
        id: str | None = None,
        forked_from: str | None = None,
    ) -> Job:
        """A new job, its input checked whole and kept; nothing of it has been sent.

        Args:
            rows: read in a thread.
            id: by default `prefix` and a new one.
            forked_from: the job that it stands in for.

        Raises:
            RequestError: with every bad row and its line, up to `MOST_FAULTS`; nothing is kept.
            StoreError: the database cannot be written.
        """
        builder = self._request_builder(spec, account_id or "")
        entries = self._entries(builder) if spec.kind == "rows" else {}
        id = id or f"{prefix}{uuid.uuid4().hex}"
        written = JOB_SPEC_JSON.dump_json(spec, exclude_defaults=True).decode()
        number = await self._store.create(NewJobRow(id, time.time(), account_id or "", written, "{}", forked_from))
        try:
            epoch = await self._store.leases.acquire(number, self._owner)
            loading = Intake(spec, builder, self._dispatcher, entries)
            await self._load(loading, number, epoch or 0, rows)
            for custom_id, line in await self._store.inputs.find_repeated_ids(number):
                loading.faults.append(Fault(f"line {line}: custom_id", f"`{custom_id}` stands in the input more than once"))
            loading.check()
        except BaseException:
            with suppress(StoreError):
                await asyncio.shield(self._store.discard(number))
            raise
        change: JobChange = {
            "state": "queued",
            "owner": None,
            "items": loading.items,
            "units": loading.units,
            "fingerprint": FINGERPRINTS.dump_json(loading.meant).decode(),
        }
        if not await self._store.update(number, change, states=("loading",), epoch=epoch):
            raise StoreError("the job was given up while its input was read")
        return await self.job(id)

    async def estimate(self, spec: JobSpec, rows: Iterable[InputRow | BadRow]) -> Estimate:
        """What a job would be; nothing of it is kept or sent.

        Raises:
            RequestError: with every bad row and its line.
        """
        builder = self._request_builder(spec, "")
        loading = Intake(spec, builder, self._dispatcher, self._entries(builder) if spec.kind == "rows" else {})
        loading.estimate, source = Estimate(), iter(rows)
        while await asyncio.to_thread(loading.take, source) is not None:
            pass
        loading.check()
        return loading.estimate

    async def _load(self, loading: Intake, number: int, epoch: int, rows: Iterable[InputRow | BadRow]) -> None:
        source = iter(rows)
        async with self._keeping(number, epoch):
            while (found := await asyncio.to_thread(loading.take, source)) is not None:
                if found and not loading.faults:
                    await self._store.inputs.add(number, found, epoch)

    @asynccontextmanager
    async def _keeping(self, number: int, epoch: int) -> AsyncGenerator[None]:
        """Keeps the lease of a job that is made, however long its input takes to come."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(POLL_INTERVAL_S)
                with suppress(StoreError):
                    await self._store.leases.renew(number, epoch, None)

        task = asyncio.create_task(beat(), name="loading")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _request_builder(self, spec: JobSpec, account_id: str) -> RequestBuilder:
        return self._builders[spec.kind](spec, account_id)

    def _entries(self, builder: RequestBuilder) -> Fingerprint:
        """What the models of a job stand for, which is the same for every row.

        Raises:
            RequestError: some cannot be called.
        """
        calls = self._dispatcher.plan(builder.build_request(EMPTY_ROW))
        refused = {call.entry: call.refusal.message for call in calls if call.refusal}
        if refused:
            raise RequestError([Fault(f"models[{entry}]", message) for entry, message in refused.items()])
        return config_fingerprint.fingerprint_entries(
            (call for call in calls if not call.sample), self._dispatcher.settings.providers
        )

    def _meaning_now(self, job: Job) -> Fingerprint:
        if job.spec.kind == "rows":
            return self._entries(self._request_builder(job.spec, job.account_id))
        calls = [self._dispatcher.plan(Request(entries=(Entry(name),), prompts=("",)))[0] for name in job.fingerprint]
        refused = {call.target.name: call.refusal.message for call in calls if call.refusal}
        if refused:
            raise RequestError([Fault(name, message) for name, message in refused.items()])
        return config_fingerprint.fingerprint_names(calls, self._dispatcher.settings.providers)

    # Looking

    async def job(self, id: str) -> Job:
        """The job of that id.

        Raises:
            RequestError: there is none.
        """
        row = await self._store.find(id)
        if row is None:
            raise RequestError([Fault("id", f"no job `{id}`", "job_not_found")])
        return Job.from_row(row)

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

    async def progress(self, id: str) -> Progress:
        """How far a job is, whoever runs it."""
        job = await self.job(id)
        if worker := self._running.get(job.number):
            return replace(worker.progress(), job=job)
        return Progress(job, await self._counts(job))

    async def watch(self, id: str, every_s: float = 1.0) -> AsyncGenerator[Progress]:
        """How far a job is, again and again, until it has ended."""
        while True:
            progress = await self.progress(id)
            yield progress
            if progress.job.state in ENDED_STATES:
                return
            await asyncio.sleep(every_s)

    async def _counts(self, job: Job) -> dict[ResultGroup, WorkTotals]:
        return {ResultGroup(*group): totals for group, totals in (await self._store.results.read_counts(job.number)).items()}

    def plan_item(self, job: Job, body: str) -> list[Call]:
        """The calls of one item of a job."""
        return self._dispatcher.plan(self._request_builder(job.spec, job.account_id).build_request(body))

    # Running

    async def run(self, id: str, on_start: Callable[[JobWorker], None] | None = None, *, wait: bool = False) -> Job:
        """Runs a job to its end, in this process.

        Args:
            on_start: called with its worker once it runs.
            wait: while another process runs it, waits until that one has ended it, or has gone.

        Raises:
            RequestError: there is no such job, it has ended, or its models mean something else by now.
            LeaseLostError: another process runs it.
            StoreError: the database cannot be written.
        """
        job = await self.job(id)
        if job.state in ENDED_STATES or job.state == "loading":
            raise RequestError([Fault("id", f"job `{id}` is {job.state}", "wrong_state")])
        meant = self._unchanged(job)
        if job.number not in self._begun:
            self._begun.add(job.number)
            try:
                gone = [job.owner] if job.owner and process_identity.is_gone(job.owner) else []
                epoch = await self._store.leases.acquire(job.number, self._owner, dead_owners=gone)
                if epoch is not None:
                    return await self._run(job, epoch, meant, on_start)
            finally:
                self._begun.discard(job.number)
        if wait:
            return await self._waited(job, on_start)
        raise LeaseLostError

    async def _run(self, job: Job, epoch: int, meant: Fingerprint, on_start: Callable[[JobWorker], None] | None) -> Job:
        """Runs a job that this process has taken, as it is now that nobody else can change it.

        Args:
            meant: what its models stand for now. Their limit groups need not be those that it was made with.
        """
        begun: JobChange = {"state": "running", "reason": None, "started": job.started or time.time()}
        if not await self._store.update(job.number, begun, states=("queued", "running"), epoch=epoch):
            job = await self.job(job.id)
            if job.state == "cancelling":
                return await self._leave(job, epoch, "cancelled", "it was cancelled")
            await self._store.update(job.number, {"owner": None}, epoch=epoch)
            raise RequestError([Fault("id", f"job `{job.id}` is {job.state}", "wrong_state")])
        job = replace(await self.job(job.id), fingerprint=meant)
        builder = self._request_builder(job.spec, job.account_id)
        worker = JobWorker(self._store, self._dispatcher, job, epoch, builder, await self._counts(job))
        self._running[job.number] = worker
        if self._leaving:
            worker.stop("queued", None)
        try:
            if on_start:
                on_start(worker)
            log.info("job begins", job=job.id, units=job.units, left=worker.progress().remaining)
            state, reason = await worker.run()
        finally:
            del self._running[job.number]
        return await self._leave(job, epoch, state, reason)

    async def _waited(self, job: Job, on_start: Callable[[JobWorker], None] | None) -> Job:
        """The job's end, whoever brings it about."""
        log.info("another process runs the job; waiting", job=job.id)
        while job.alive and not (job.owner and process_identity.is_gone(job.owner)):
            await asyncio.sleep(POLL_INTERVAL_S / 4)
            job = await self.job(job.id)
        return job if job.state in ENDED_STATES else await self.run(job.id, on_start, wait=True)

    async def _leave(self, job: Job, epoch: int, state: JobState, reason: str | None) -> Job:
        """Writes how a run ended, and waits a while for a database that cannot be written just then."""
        for _ in range(MAX_FINAL_WRITES):
            with suppress(StoreError):
                return await self._left(job, epoch, state, reason)
            await asyncio.sleep(POLL_INTERVAL_S)
        return await self._left(job, epoch, state, reason)

    async def _left(self, job: Job, epoch: int, state: JobState, reason: str | None) -> Job:
        ended = time.time() if state in ENDED_STATES else None
        change: JobChange = {"state": state, "reason": reason, "ended": ended, "owner": None, "rate": None}
        states: Sequence[JobState] = ("queued", "running") if state == "queued" else ()
        if not await self._store.update(job.number, change, states=states, epoch=epoch):
            # A job that is left to others must not forget that it was cancelled.
            change |= {"state": "cancelled", "reason": "it was cancelled", "ended": time.time()}
            await self._store.update(job.number, change, states=("cancelling",), epoch=epoch)
        log.info("job ends", job=job.id, state=state, reason=reason)
        return await self.job(job.id)

    def _unchanged(self, job: Job) -> Fingerprint:
        """What its models stand for now.

        Raises:
            RequestError: it is not what it was.
        """
        meant = self._meaning_now(job)
        changed = config_fingerprint.find_differences(job.fingerprint, meant)
        if changed:
            raise RequestError(changed)
        return meant

    async def run_waiting_jobs(self) -> None:
        """Looks for jobs that nobody runs, and runs them, until it is cancelled; then leaves them to the next process."""
        try:
            while True:
                try:
                    await self._adopt()
                except StoreError:
                    pass  # told by whoever writes
                except Exception:  # else no job would ever be looked for any more
                    log.exception("bug in looking for jobs")
                self._look.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await self._look.wait()
        finally:
            self.hand_over()
            await self.wait_until_idle()

    def hand_over(self) -> None:
        """Sends nothing more; what runs is left to the next process once its calls under way have ended."""
        self._leaving = True
        for worker in self._running.values():
            worker.stop("queued", None)

    async def wait_until_idle(self) -> None:
        """Returns once no job runs that was looked for here."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _adopt(self) -> None:
        if self._leaving:
            return
        await self.discard_abandoned()
        for row in reversed(await self._store.list_jobs(limit=1_000, states=("queued", "running", "cancelling"))):
            job = Job.from_row(row)
            if not _is_left(job) or job.number in self._tasks or not job.spec.unattended:
                continue
            if len(self._tasks) < MAX_RUNNING_JOBS:
                task = asyncio.create_task(self._attended(job), name=f"job {job.id}")
                self._tasks[job.number] = task
                task.add_done_callback(partial(self._gone, job.number))

    async def discard_abandoned(self) -> None:
        """Forgets jobs whose making was cut off."""
        for row in await self._store.list_jobs(limit=1_000, states=("loading",)):
            job = Job.from_row(row)
            if _is_left(job) and (job.owner or job.created < time.time() - LEASE_S):  # else it is only just being made
                await self._store.discard(job.number)

    def _gone(self, number: int, _: asyncio.Task[Any]) -> None:
        self._tasks.pop(number, None)
        self._look.set()

    async def _attended(self, job: Job) -> None:
        """One job, whose troubles are written down where they can be."""
        try:
            await self.run(job.id)
        except LeaseLostError:
            log.warning("another process has taken the job", job=job.id)
        except FanoutError as error:
            log.error("job stopped", job=job.id, reason=str(error))
            await self._broken(job, str(error))
        except Exception:  # else it would be taken up again and again, and its first calls paid for each time
            log.exception("bug in a job", job=job.id)
            await self._broken(job, "Fanout could not run it; its log has the details")

    async def _broken(self, job: Job, reason: str) -> None:
        """Stops a job, unless another process has it by now."""
        stopped: JobChange = {"state": "stopped", "reason": reason, "ended": time.time(), "owner": None, "rate": None}
        with suppress(StoreError):
            await self._store.update(job.number, stopped, states=("queued", "running"), dead_owners=[self._owner])

    # What its user wants of it

    async def cancel(self, id: str) -> Job:
        """Has nothing more sent; what is under way is waited for. A job that has ended stays as it is."""
        job = await self.job(id)
        if not _is_left(job):
            await self._store.update(job.number, {"state": "cancelling"}, states=("queued", "running"))
            if worker := self._running.get(job.number):
                worker.stop("cancelled", "it was cancelled")
        else:
            cancelled: JobChange = {"state": "cancelled", "reason": "it was cancelled", "ended": time.time()}
            await self._store.update(job.number, cancelled, states=("queued", "running", "cancelling", "stopped"))
        return await self.job(id)

    async def resume(self, id: str, *, fork: bool = False, **changes: Any) -> Job:
        """Queues a job that was stopped, cancelled, expired or cut off.

        Args:
            fork: where its models mean something else by now, or its input is another, asks everything anew in a new job.
            changes: fields of its `Spec` that do not change what is asked: its cost, deadline, concurrency and attempts.

        Raises:
            RequestError: it is done, or runs, or has changed: with every difference.
        """
        job = await self.job(id)
        spec = _not_late(replace(job.spec, **changes))
        if fork:
            return await self._forked(job, spec)
        if job.state == "done":
            raise RequestError([Fault("id", f"job `{id}` is done; `retry` asks again what has failed", "wrong_state")])
        if job.state == "loading" or (job.alive and not (job.owner and process_identity.is_gone(job.owner))):
            raise RequestError([Fault("id", f"job `{id}` is {job.state}; it need not be resumed", "wrong_state")])
        self._unchanged(job)
        await self._queue(job, spec)
        return await self.job(id)

    async def retry(self, id: str, kinds: Sequence[str] = (), **changes: Any) -> Job:
        """Asks again what has failed, of these kinds alone if any are given.

        Raises:
            RequestError: it runs, or it has changed: with every difference.
        """
        job = await self.job(id)
        if job.state not in ENDED_STATES:
            raise RequestError([Fault("id", f"job `{id}` is {job.state}; cancel it first, or wait for its end", "wrong_state")])
        self._unchanged(job)
        if await self._store.journal.reopen(job.number, kinds, states=(job.state,)) is None:
            raise RequestError([Fault("id", f"job `{job.id}` is no longer {job.state}", "wrong_state")])
        await self._queue(job, _not_late(replace(job.spec, **changes)))
        return await self.job(id)

    async def _queue(self, job: Job, spec: JobSpec) -> None:
        written = JOB_SPEC_JSON.dump_json(spec, exclude_defaults=True).decode()
        queued: JobChange = {"state": "queued", "reason": None, "ended": None, "owner": None, "spec": written}
        gone = [job.owner] if job.owner and process_identity.is_gone(job.owner) else []
        if not await self._store.update(job.number, queued, states=(job.state,), dead_owners=gone):
            raise RequestError([Fault("id", f"job `{job.id}` is no longer {job.state}", "wrong_state")])
        self._look.set()

    async def _forked(self, job: Job, spec: JobSpec) -> Job:
        forked = replace(job, spec=spec)
        id = f"{job.id.partition('_')[0]}_{uuid.uuid4().hex}"
        row = NewJobRow(
            id=id,
            created=time.time(),
            account_id=job.account_id,
            spec=JOB_SPEC_JSON.dump_json(spec, exclude_defaults=True).decode(),
            fingerprint=FINGERPRINTS.dump_json(self._meaning_now(forked)).decode(),
            forked_from=job.id,
        )
        units = job.units
        if job.spec.kind == "rows":  # its sets may have other members by now
            units = job.items * len(self._dispatcher.plan(self._request_builder(spec, job.account_id).build_request(EMPTY_ROW)))
        number = await self._store.create(row)
        try:
            epoch = await self._store.leases.acquire(number, self._owner) or 0
            async with self._keeping(number, epoch):
                for first in range(0, job.items, COPY_CHUNK_ITEMS):
                    await self._store.inputs.copy(job.number, number, first, first + COPY_CHUNK_ITEMS)
        except BaseException:
            with suppress(StoreError):
                await asyncio.shield(self._store.discard(number))
            raise
        change: JobChange = {"state": "queued", "owner": None, "items": job.items, "units": units}
        await self._store.update(number, change, epoch=epoch)
        self._look.set()
        return await self.job(id)

    def notify_queued(self) -> None:
        """A job was made that waits to be run."""
        self._look.set()


def _is_left(job: Job) -> bool:
    """Whether nobody has it."""
    return not job.alive or (job.owner is not None and process_identity.is_gone(job.owner))


def _not_late(spec: JobSpec) -> JobSpec:
    """Without a deadline that has passed: what goes on now would expire at once."""
    return replace(spec, deadline=None) if spec.deadline is not None and spec.deadline <= time.time() else spec


@asynccontextmanager
async def open_job_manager(
    store: JobStore,
    dispatcher: Dispatcher,
    builders: Mapping[JobKind, RequestBuilderFactory] | None = None,
    *,
    run_waiting: bool = False,
) -> AsyncGenerator[JobManager]:
    """A manager; at the end what it runs is left to the next process.

    Args:
        run_waiting: it also looks for jobs that nobody runs.
    """
    manager = JobManager(store, dispatcher, builders)
    async with store.journal.run():
        task = asyncio.create_task(manager.run_waiting_jobs(), name="jobs") if run_waiting else None
        try:
            yield manager
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
