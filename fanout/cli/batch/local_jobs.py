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
from fanout.core.errors import ConfigError, Fault, RequestError
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher, raise_file_limit
from fanout.dispatch.plan import Entry, Request
from fanout.jobs import output_files
from fanout.jobs.input_diff import changes as changes_of
from fanout.jobs.job import ENDED_STATES, OPEN_STATES, Kind, Progress, Spec
from fanout.jobs.manager import Askings, Keeper, open_keeper
from fanout.jobs.result_records import records
from fanout.jobs.row_request import rows_of
from fanout.jobs.worker import Runner
from fanout.limits.limiter import Limiter
from fanout.server.dialects.openai.batch_lines import ENDPOINTS, LineAsking
from fanout.server.resources.jobs import render_estimate, render_job
from fanout.store import MEMORY, OFF, open_store
from fanout.store.jobs.journal import JobStore, ResultFilter

ASKINGS: Mapping[Kind, Askings] = {"rows": rows_of, "requests": LineAsking}
LOOK_S = 0.25
"""How often a job that runs here is looked at."""
WATCH_S = 1.0
"""The same for one that another process runs."""
INTERRUPTED = "it was interrupted"


class OwnJobs:
    """Open them with `open_own`. One job is run at a time."""

    def __init__(self, keeper: Keeper, store: JobStore, dispatcher: Dispatcher) -> None:
        self._keeper, self._store, self._dispatcher = keeper, store, dispatcher
        self._runner: Runner | None = None
        self._stopped = False
        self._grace: asyncio.TimerHandle | None = None

    async def estimate(self, asked: Asked, source: Input) -> dict[str, Any]:
        return render_estimate(await self._keeper.estimate(_spec(asked, source), source.rows()), self._dispatcher)

    async def create(self, asked: Asked, source: Input) -> Job:
        return await self._json((await self._keeper.create(_spec(asked, source), source.rows())).id)

    async def job(self, id: str) -> Job | None:
        try:
            return await self._json(id)
        except RequestError:
            return None

    async def _json(self, id: str) -> Job:
        return render_job(await self._keeper.progress(id))

    async def begun(self, name: str) -> list[Job]:
        found = [job.id for prefix in PREFIXES for job in await self._keeper.jobs(most=5, prefix=prefix + name)]
        return [await self._json(id) for id in dict.fromkeys(found)]

    async def listed(self, most: int, state: str | None = None) -> list[Job]:
        states = (state,) if state else (*OPEN_STATES, *ENDED_STATES)
        return [await self._json(job.id) for job in await self._keeper.jobs(most=most, states=states)]

    async def resume(self, job: Job, changes: Mapping[str, Any], source: Input | None, *, fork: bool) -> Job:
        """Raises:
        RequestError: its models or its input have changed: with every difference.
        """
        kept = await self._keeper.job(job["id"])
        changed: Sequence[Fault] = ()
        if source and kept.spec.input.get("sha256") != source.sha256:
            asking = ASKINGS[kept.spec.kind](replace(kept.spec, typed=source.typed), kept.account_id)
            changed = await changes_of(self._store, kept, asking, source.rows())
        if changed and source and fork:
            spec = replace(kept.spec, **{"deadline": None, **changes}, input=source.about, typed=source.typed)
            forked = await self._keeper.create(spec, source.rows(), account_id=kept.account_id, forked_from=kept.id)
            return await self._json(forked.id)
        if changed:
            raise RequestError(changed)
        return await self._json((await self._keeper.resume(kept.id, fork=fork, **changes)).id)

    async def retry(self, job: Job, kinds: Sequence[str], changes: Mapping[str, Any]) -> Job:
        return await self._json((await self._keeper.retry(job["id"], kinds, **changes)).id)

    async def cancel(self, job: Job) -> Job:
        return await self._json((await self._keeper.cancel(job["id"])).id)

    async def labels(self, job: Job) -> Sequence[str]:
        if job["kind"] != "rows":
            return ()
        return [name.partition(": ")[2] for name in (await self._keeper.job(job["id"])).fingerprint]

    async def run(self, job: Job) -> AsyncGenerator[Seen]:
        """Raises:
        LeaseLost: another process runs it.
        """
        kept = await self._keeper.job(job["id"])
        names = dict.fromkeys(str(row["model"]) for row in kept.fingerprint.values())
        asked = [Request(entries=(Entry(name),), prompts=("",)) for name in names]
        await self._dispatcher.prepare([call for request in asked for call in self._dispatcher.plan(request)])
        task = asyncio.create_task(self._keeper.run(kept.id, self._told), name="job")
        try:
            while not task.done():
                if self._runner:
                    yield Seen(render_job(self._runner.progress()), self._notes(self._runner))
                await asyncio.wait({task}, timeout=LOOK_S)
            await task
        finally:
            if self._grace:
                self._grace.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        yield Seen(await self._json(kept.id))

    def _told(self, runner: Runner) -> None:
        self._runner = runner
        if self._stopped:
            runner.stop("stopped", INTERRUPTED)

    def _notes(self, runner: Runner) -> list[str]:
        progress = runner.progress()
        waiting = f"{progress.waiting:,} calls wait to be tried again" if progress.waiting else ""
        trouble = f"the database cannot be written; it waits: {runner.trouble}" if runner.trouble else ""
        accounts = [note for limiter in self._dispatcher.limiters if (note := _note(limiter))]
        return [note for note in (*accounts, waiting, trouble) if note]

    async def watch(self, job: Job) -> AsyncGenerator[Seen]:
        progress: Progress
        async for progress in self._keeper.events(job["id"], every_s=WATCH_S):
            yield Seen(render_job(progress))

    async def stop(self) -> None:
        self._stopped = True
        if self._runner:
            self._runner.stop("stopped", INTERRUPTED)
        grace_s = self._dispatcher.settings.environment.grace_s
        self._grace = asyncio.get_running_loop().call_later(grace_s, self._dispatcher.stop)

    def cut(self) -> None:
        self._dispatcher.stop()

    async def export(self, job: Job, output: str, format: str | None, which: Which) -> None:
        number = (await self._keeper.job(job["id"])).number
        chosen = ResultFilter(which.failed, which.model, which.kind, different=which.different)
        target = sys.stdout.buffer if output == "-" else Path(output)
        with output_files.open_writer(target, output_files.format_of(output, format)) as writer:
            after = None
            while page := await self._store.results(number, after=after, which=chosen):
                after = (page[-1].item, page[-1].entry, page[-1].repeat)
                await asyncio.to_thread(lambda rows: writer.write(list(records(rows))), page)


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


def _spec(asked: Asked, source: Input) -> Spec:
    if asked.endpoint is not None and asked.endpoint not in ENDPOINTS:
        allowed = " or ".join(f"`{name}`" for name in ENDPOINTS)
        raise RequestError([Fault("line 1: url", f"`{asked.endpoint[:100]}` is not allowed: {allowed}")])
    return Spec(
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
            open_keeper(store, dispatcher, ASKINGS) as keeper,
        ):
            await keeper.sweep()
            yield OwnJobs(keeper, store, dispatcher)


A_FILE = "name a file, or unset it for the one in your data folder"
