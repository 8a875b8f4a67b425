"""Jobs in this process's own store, run by this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fanout.cli.batch.backend import PREFIXES, Asked, Job, Seen, Which
from fanout.cli.batch.input import Input
from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, RequestError
from fanout.core.faults import Fault
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher, raise_file_limit
from fanout.dispatch.plan import Entry, Request
from fanout.jobs import output_files
from fanout.jobs.input_diff import find_input_differences
from fanout.jobs.job import ENDED_STATES, OPEN_STATES, JobKind, JobSpec, Progress
from fanout.jobs.manager import JobManager, RequestBuilderFactory, open_job_manager
from fanout.jobs.result_records import build_records
from fanout.jobs.row_request import make_row_request_builder
from fanout.jobs.worker import JobWorker
from fanout.limits.limiter import Limiter
from fanout.server.dialects.openai.batch_lines import ENDPOINTS, LineRequestBuilder
from fanout.server.resources.jobs import render_estimate, render_job
from fanout.store import MEMORY, OFF, open_store
from fanout.store.jobs.journal import JobStore, ResultFilter

REQUEST_BUILDERS: Mapping[JobKind, RequestBuilderFactory] = {"rows": make_row_request_builder, "requests": LineRequestBuilder}
LOOK_S = 0.25
"""How often a job that runs here is looked at."""
WATCH_S = 1.0
"""The same for one that another process runs."""
INTERRUPTED = "it was interrupted"


class OwnJobs:
    """Open them with `open_own`. One job is run at a time."""

    def __init__(self, manager: JobManager, store: JobStore, dispatcher: Dispatcher) -> None:
        self._manager, self._store, self._dispatcher = manager, store, dispatcher
        self._worker: JobWorker | None = None
        self._stopped = False
        self._grace: asyncio.TimerHandle | None = None

    async def estimate(self, asked: Asked, source: Input) -> dict[str, Any]:
        return render_estimate(await self._manager.estimate(_spec(asked, source), source.rows()), self._dispatcher)

    async def create(self, asked: Asked, source: Input) -> Job:
        return await self._json((await self._manager.create(_spec(asked, source), source.rows())).id)

    async def job(self, id: str) -> Job | None:
        try:
            return await self._json(id)
        except RequestError:
            return None

    async def _json(self, id: str) -> Job:
        return render_job(await self._manager.progress(id))

    async def begun(self, name: str) -> list[Job]:
        found = [job.id for prefix in PREFIXES for job in await self._manager.jobs(most=5, prefix=prefix + name)]
        return [await self._json(id) for id in dict.fromkeys(found)]

    async def listed(self, most: int, state: str | None = None) -> list[Job]:
        states = (state,) if state else (*OPEN_STATES, *ENDED_STATES)
        return [await self._json(job.id) for job in await self._manager.jobs(most=most, states=states)]

    async def resume(self, job: Job, changes: Mapping[str, Any], source: Input | None, *, fork: bool) -> Job:
        """Raises:
        RequestError: its models or its input have changed: with every difference.
        """
        kept = await self._manager.job(job["id"])
        changed: Sequence[Fault] = ()
        if source and kept.spec.input.get("sha256") != source.sha256:
            builder = REQUEST_BUILDERS[kept.spec.kind](replace(kept.spec, typed=source.typed), kept.account_id)
            changed = await find_input_differences(self._store, kept, builder, source.rows())
        if changed and source and fork:
            spec = replace(kept.spec, **{"deadline": None, **changes}, input=source.about, typed=source.typed)
            forked = await self._manager.create(spec, source.rows(), account_id=kept.account_id, forked_from=kept.id)
            return await self._json(forked.id)
        if changed:
            raise RequestError(changed)
        return await self._json((await self._manager.resume(kept.id, fork=fork, **changes)).id)

    async def retry(self, job: Job, kinds: Sequence[str], changes: Mapping[str, Any]) -> Job:
        return await self._json((await self._manager.retry(job["id"], kinds, **changes)).id)

    async def cancel(self, job: Job) -> Job:
        return await self._json((await self._manager.cancel(job["id"])).id)

    async def labels(self, job: Job) -> Sequence[str]:
        if job["kind"] != "rows":
            return ()
        return [name.partition(": ")[2] for name in (await self._manager.job(job["id"])).fingerprint]

    async def run(self, job: Job) -> AsyncGenerator[Seen]:
        """Raises:
        LeaseLost: another process runs it.
        """
        kept = await self._manager.job(job["id"])
        names = dict.fromkeys(str(row["model"]) for row in kept.fingerprint.values())
        asked = [Request(entries=(Entry(name),), prompts=("",)) for name in names]
        await self._dispatcher.prepare([call for request in asked for call in self._dispatcher.plan(request)])
        task = asyncio.create_task(self._manager.run(kept.id, self._told), name="job")
        try:
            while not task.done():
                if self._worker:
                    yield Seen(render_job(self._worker.progress()), self._notes(self._worker))
                await asyncio.wait({task}, timeout=LOOK_S)
            await task
        finally:
            if self._grace:
                self._grace.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        yield Seen(await self._json(kept.id))

    def _told(self, worker: JobWorker) -> None:
        self._worker = worker
        if self._stopped:
            worker.stop("stopped", INTERRUPTED)

    def _notes(self, worker: JobWorker) -> list[str]:
        progress = worker.progress()
        waiting = f"{progress.waiting:,} calls wait to be tried again" if progress.waiting else ""
        trouble = f"the database cannot be written; it waits: {worker.trouble}" if worker.trouble else ""
        accounts = [note for limiter in self._dispatcher.limiters if (note := _note(limiter))]
        return [note for note in (*accounts, waiting, trouble) if note]

    async def watch(self, job: Job) -> AsyncGenerator[Seen]:
        progress: Progress
        async for progress in self._manager.watch(job["id"], every_s=WATCH_S):
            yield Seen(render_job(progress))

    async def stop(self) -> None:
        self._stopped = True
        if self._worker:
            self._worker.stop("stopped", INTERRUPTED)
        grace_s = self._dispatcher.settings.environment.grace_s
        self._grace = asyncio.get_running_loop().call_later(grace_s, self._dispatcher.stop)

    def cut(self) -> None:
        self._dispatcher.stop()

    async def export(self, job: Job, output: str, format: str | None, which: Which) -> None:
        number = (await self._manager.job(job["id"])).number
        chosen = ResultFilter(which.failed, which.model, which.kind, different=which.different)
        target = sys.stdout.buffer if output == "-" else Path(output)
        with output_files.open_writer(target, output_files.choose_format(output, format)) as writer:
            after = None
            while page := await self._store.results(number, after=after, which=chosen):
                after = (page[-1].item, page[-1].entry, page[-1].repeat)
                await asyncio.to_thread(lambda rows: writer.write(list(build_records(rows))), page)


def _note(limiter: Limiter) -> str:
    """What holds an account's calls back, if anything does."""
    state, parts = limiter.snapshot(), []
    if state.paused_s >= 1:
        parts.append(f"paused for {state.paused_s:.0f} s")
    if state.paused_models:
        parts.append(f"{', '.join(state.paused_models[:3])} paused")
    if state.waiting_batch:
        parts.append(f"{state.waiting_batch:,} wait for its limits")
    return f"{limiter.name}: {', '.join(parts)}" if parts else ""


def _spec(asked: Asked, source: Input) -> JobSpec:
    if asked.endpoint is not None and asked.endpoint not in ENDPOINTS:
        allowed = " or ".join(f"`{name}`" for name in ENDPOINTS)
        raise RequestError([Fault("line 1: url", f"`{asked.endpoint[:100]}` is not allowed: {allowed}")])
    return JobSpec(
        kind="requests" if asked.endpoint else "rows",
        models=tuple({"model": model} for model in asked.models),
        repeats=asked.repeats,
        template=asked.template,
        system=asked.system,
        parameters=asked.parameters,
        strict=asked.strict,
        endpoint=asked.endpoint,
        cache=asked.cache,
        name=asked.name,
        metadata=asked.metadata,
        input=source.about,
        typed=source.typed,
        **asked.changes,
    )


@asynccontextmanager
async def open_own(settings: Settings, *, kept: bool = True) -> AsyncGenerator[OwnJobs]:
    """The jobs of the store that these settings name.

    Args:
        kept: they outlive this process; else nothing is asked, and no store is needed.

    Raises:
        ConfigError: the store cannot be opened, or keeps nothing.
    """
    environment = settings.environment
    location = (environment.store.get_secret_value() if environment.store else "") if kept else MEMORY
    if location in ("", OFF):
        why = "is `off`" if location else "is not set, and there is no data folder"
        raise ConfigError(
            "environment", [Fault("FANOUT_STORE", f"{why}: a job needs a store that outlives the command; {A_FILE}")]
        )
    async with open_store(location, history=environment.history, history_days=environment.history_days) as opened:
        assert opened, "only `off` is none"
        if kept and opened.database.in_memory:
            sentence = f"is in memory: a job needs a store that outlives the command; {A_FILE}"
            raise ConfigError("environment", [Fault("FANOUT_STORE", sentence)])
        raise_file_limit()
        store = JobStore(opened.database)
        async with (
            open_dispatcher(settings, [opened.usage.observe]) as dispatcher,
            open_job_manager(store, dispatcher, REQUEST_BUILDERS) as manager,
        ):
            await manager.discard_abandoned()
            yield OwnJobs(manager, store, dispatcher)


A_FILE = "name a file, or unset it for the one in your data folder"
