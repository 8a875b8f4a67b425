"""Jobs kept in this configuration's store and run by this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import fanout
from fanout.cli.batch.backend import ID_PREFIXES, JobSnapshot
from fanout.cli.batch.input import JobInput
from fanout.cli.batch.results_output import find_results_output
from fanout.cli.evaluation.local_evaluation import LocalEvaluation
from fanout.cli.model_choice import expand_models, list_local_models
from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.sockets import raise_file_limit
from fanout.core.threads import run_in_thread
from fanout.dispatch.default_models import EMBEDDED_SET, OWN_SET
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request
from fanout.evaluate.judging.checks import check_judges
from fanout.evaluate.scoring.declarations import parse_scorers, to_declaration
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.evaluate.stopping.opening import check_plan
from fanout.jobs import output_files
from fanout.jobs.activity import describe_activity
from fanout.jobs.export import encode_results
from fanout.jobs.input_diff import find_input_differences
from fanout.jobs.job import JobKind, JobSpec, RequestBuilderFactory
from fanout.jobs.loading import make_budget
from fanout.jobs.manager import JobManager, open_job_manager
from fanout.jobs.presence import Presence
from fanout.jobs.row_request import RowRequestBuilder
from fanout.jobs.worker import JobWorker
from fanout.limits.limiter import Limiter
from fanout.rendering.job import JobEstimateJson, JobJson, render_estimate, render_job
from fanout.requests.openai.batch_lines import BODIES, LineRequestBuilder
from fanout.store.engine.database import CLOSE_TIMEOUT_S
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ENDED_STATES, OPEN_STATES, JobState, ResultFilter
from fanout.store.opening import MEMORY, OFF, Store, open_store

REQUEST_BUILDERS: Mapping[JobKind, RequestBuilderFactory] = {"rows": RowRequestBuilder, "requests": LineRequestBuilder}
SNAPSHOT_INTERVAL_S = 0.25
"""Between snapshots of a job that this process runs."""
POLL_INTERVAL_S = 1.0
"""Between readings of a job that another process runs."""
MAX_PREFIX_MATCHES = 5
MAX_SHOWN_MODELS = 3
INTERRUPTED = "it was interrupted"
NEEDS_STORE = (
    "a job needs a store that outlives the command; name a file, or unset the variable to use the one in your data folder"
)


class LocalJobs:
    """The jobs of a store; opened by `open_local_jobs`. Runs one job at a time."""

    def __init__(
        self,
        manager: JobManager,
        store: JobStore,
        dispatcher: Dispatcher,
        give_up_store: Callable[[float], None],
        presence: Presence | None = None,
    ) -> None:
        self._presence = presence
        self._manager, self._store, self._dispatcher, self._give_up_store = manager, store, dispatcher, give_up_store
        self._worker: JobWorker | None = None
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        """Ends what a stopped job still waits for."""

    async def choose_models(self, words: Sequence[str]) -> Sequence[str]:
        catalogue = self._dispatcher.catalogue
        # Not what happens to be ready, as `fanout ask` takes: a file of rows costs more than one question.
        own = OWN_SET if OWN_SET in self._dispatcher.settings.sets else EMBEDDED_SET
        return expand_models(words, lambda: list_local_models(catalogue)) if words else (own,)

    async def estimate(self, spec: JobSpec, source: JobInput) -> JobEstimateJson:
        estimate = await self._manager.estimate(_complete_spec(spec, source, self._dispatcher), source.rows())
        return render_estimate(estimate, self._dispatcher.settings.providers)

    async def create(self, spec: JobSpec, source: JobInput) -> JobJson:
        return await self._render(
            (await self._manager.create(_complete_spec(spec, source, self._dispatcher), source.rows())).id
        )

    async def get(self, job_id: str) -> JobJson | None:
        try:
            return await self._render(job_id)
        except RequestError:
            return None

    async def _render(self, job_id: str) -> JobJson:
        return render_job(await self._manager.read_progress(job_id))

    async def find_by_prefix(self, prefix: str) -> list[JobJson]:
        found = {
            job.id: job
            for start in ID_PREFIXES
            for job in await self._manager.list_jobs(limit=MAX_PREFIX_MATCHES, prefix=start + prefix)
        }
        return [render_job(progress) for progress in await self._manager.read_progress_of(list(found.values()))]

    async def list_jobs(self, limit: int, state: str | None = None) -> list[JobJson]:
        states = (cast(JobState, state),) if state else (*OPEN_STATES, *ENDED_STATES)
        found = await self._manager.list_jobs(limit=limit, states=states)
        return [render_job(progress) for progress in await self._manager.read_progress_of(found)]

    async def resume(self, job: JobJson, limits: JsonObject, source: JobInput | None, *, fork: bool) -> JobJson:
        kept = await self._manager.find_job(job["id"])
        differences: Sequence[Fault] = ()
        # Another hash may still mean the same rows, written in another order of columns or another format.
        if source and kept.spec.input.get("sha256") != source.sha256:
            builder = REQUEST_BUILDERS[kept.spec.kind](replace(kept.spec, typed=source.is_typed), kept.account_id)
            budget = make_budget(self._dispatcher.settings.environment)
            differences = await find_input_differences(self._store, kept, builder, source.rows(), budget)
        if differences and source and fork:
            # The old deadline may have passed; the new job has one only if it is given now.
            spec = replace(kept.spec, **{"deadline": None, **limits}, input=source.identity, typed=source.is_typed)
            forked = await self._manager.create(spec, source.rows(), account_id=kept.account_id, forked_from=kept.id)
            return await self._render(forked.id)
        if differences:
            raise RequestError(differences)
        return await self._render((await self._manager.resume(kept.id, fork=fork, **limits)).id)

    async def retry(self, job: JobJson, kinds: Sequence[str], limits: JsonObject) -> JobJson:
        return await self._render((await self._manager.retry(job["id"], kinds, **limits)).id)

    async def cancel(self, job: JobJson) -> JobJson:
        return render_job(await self._manager.cancel(job["id"]))

    async def list_labels(self, job: JobJson) -> Sequence[str]:
        if job["kind"] != "rows":
            return ()  # each line of an OpenAI batch file names its own models
        return [name.partition(": ")[2] for name in (await self._manager.find_job(job["id"])).fingerprint]

    async def run(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        """Run a job in this process; raises LeaseLostError if another one runs it."""
        kept, self._worker = await self._manager.find_job(job["id"]), None
        # Prepare the models (the embedded ones train) before the job's clock starts, so that no call pays for it.
        names = dict.fromkeys(str(row["model"]) for row in kept.fingerprint.values())
        requests = [Request(entries=(Entry(name),), prompts=("",)) for name in names]
        await self._dispatcher.prepare([call for request in requests for call in self._dispatcher.plan(request)])
        presence = self._presence.running() if self._presence else nullcontext()
        async with presence, aclosing(self._run(kept.id)) as snapshots:
            async for snapshot in snapshots:
                yield snapshot
        # The stored state is final; the worker's last progress may lack the reason why it stopped.
        yield JobSnapshot(await self._render(kept.id))

    async def _run(self, job_id: str) -> AsyncGenerator[JobSnapshot]:
        task = asyncio.create_task(self._manager.run(job_id, self._accept_worker), name="job")
        try:
            while not task.done():
                if self._worker:
                    yield JobSnapshot(render_job(self._worker.progress), self._list_notes(self._worker))
                await asyncio.wait({task}, timeout=SNAPSHOT_INTERVAL_S)
            await task  # raises what the job raised
        finally:
            # Also reached when the consumer closes this generator: no task may outlive the store.
            if self._timer:
                self._timer.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _accept_worker(self, worker: JobWorker) -> None:
        self._worker = worker
        if self._is_stopped:  # while the job was being prepared
            worker.stop("stopped", INTERRUPTED)

    def _list_notes(self, worker: JobWorker) -> list[str]:
        progress = worker.progress
        waiting = f"{progress.waiting:,} calls are waiting for another attempt" if progress.waiting else ""
        trouble = f"the database cannot be written, trying again: {worker.store_error}" if worker.store_error else ""
        accounts = [note for limiter in self._dispatcher.limiters if (note := describe_limits(limiter))]
        return [note for note in (*accounts, waiting, trouble) if note]

    async def watch(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        async for progress in self._manager.watch(job["id"], every_s=POLL_INTERVAL_S):
            yield JobSnapshot(render_job(progress))

    async def stop(self) -> None:
        """Stop the job, and `abort` after the grace period."""
        self._is_stopped = True
        if self._worker:
            self._worker.stop("stopped", INTERRUPTED)
        grace_s = self._dispatcher.settings.environment.grace_s
        self._timer = asyncio.get_running_loop().call_later(grace_s, self.abort)

    def abort(self) -> None:
        """End its calls at once, and a while later its waiting for a database that does not answer."""
        if self._timer:
            self._timer.cancel()
        self._dispatcher.stop()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._give_up_store, 0.0)

    async def export(
        self, job: JobJson, output: str, format_: str | None, chosen: ResultFilter, *, quote_formulas: bool = False
    ) -> None:
        number = (await self._manager.find_job(job["id"])).number
        kind = output_files.choose_format(output, format_)
        pieces = encode_results(self._store, number, output_files.make_encoder(kind, quote_formulas=quote_formulas), chosen)
        with output_files.open_output(find_results_output(output, kind)) as write:
            async with aclosing(pieces):
                async for piece in pieces:
                    await run_in_thread("exports", write, piece)  # a pipe may be full

    @property
    def evaluation(self) -> LocalEvaluation:
        return LocalEvaluation(self._store, self._manager)


def describe_limits(limiter: Limiter) -> str:
    """Return what holds the calls of an account, for the line under a running job; empty where nothing does."""
    state, parts = limiter.snapshot(), []
    if state.paused_s >= 1:
        parts.append(f"paused for {state.paused_s:.0f} s")
    if state.paused_models:
        parts.append(f"{', '.join(state.paused_models[:MAX_SHOWN_MODELS])} paused")
    if failing := [circuit.model or "every call" for circuit in limiter.circuits.list_open()]:
        parts.append(f"{', '.join(failing[:MAX_SHOWN_MODELS])} keeps failing and is tried again from time to time")
    if state.is_alone:
        parts.append("the store is away, and its limits are kept by shares")
    if state.waiting_batch:
        parts.append(f"{state.waiting_batch:,} calls waiting for its limits")
    return f"{limiter.name}: {', '.join(parts)}" if parts else ""


def _complete_spec(spec: JobSpec, source: JobInput, dispatcher: Dispatcher) -> JobSpec:
    if spec.endpoint is not None and spec.endpoint not in BODIES:
        allowed = " or ".join(f"`{name}`" for name in BODIES)
        raise RequestError([Fault("line 1: url", f"`{spec.endpoint[:100]}` is not allowed: {allowed}")])
    scorers = parse_scorers(spec.scorers, allow_functions=True)
    check_judges(dispatcher, scorers)
    check_plan(spec, scorers)
    return replace(spec, scorers=tuple(map(to_declaration, scorers)), input=source.identity, typed=source.is_typed)


@asynccontextmanager
async def open_local_jobs(
    settings: Settings, *, in_memory: bool = False, is_reading: bool = False
) -> AsyncGenerator[LocalJobs]:
    """Open the jobs of the configured store, or of an empty one `in_memory`, enough for an estimate.

    With `is_reading` nothing is written, and jobs cannot be run.

    Raises:
        ConfigError: the store cannot be opened, or keeps nothing.
    """
    environment = settings.environment
    location = MEMORY if in_memory else environment.store.get_secret_value() if environment.store else ""
    if location in ("", OFF):
        state = "is `off`" if location else "is not set, and there is no data folder"
        raise ConfigError("environment", [Fault("FANOUT_STORE", f"{state}: {NEEDS_STORE}")])
    async with open_store(
        location,
        history=environment.history,
        history_days=environment.history_days,
        usage_days=environment.usage_days,
        is_reading=is_reading,
        shares_limits=None,
    ) as opened:
        assert opened, "open_store returns None only for `off`"
        if opened.database.in_memory and not in_memory:
            raise ConfigError("environment", [Fault("FANOUT_STORE", f"is in memory: {NEEDS_STORE}")])
        raise_file_limit()  # every call in flight holds a socket
        store = JobStore(opened.database)
        open_scorer = make_scorer_factory(store, allow_functions=True)
        sys.path.append(str(Path.cwd()))  # for scorers that are functions of the user's own
        async with (
            open_dispatcher(settings, [opened.observe], sharing=opened.limits) as dispatcher,
            open_job_manager(store, dispatcher, REQUEST_BUILDERS, open_scorer=open_scorer) as manager,
        ):
            if not is_reading:
                await manager.supervisor.discard_abandoned_jobs()  # jobs whose input was not read to its end
            yield LocalJobs(
                manager, store, dispatcher, opened.database.give_up_after, _make_presence(opened, manager, dispatcher)
            )


def _make_presence(store: Store, manager: JobManager, dispatcher: Dispatcher) -> Presence | None:
    """Return the place of a running job's process among those that share a PostgreSQL database."""
    if store.database.dialect == "sqlite":
        return None
    # It takes no jobs but its own.
    return Presence(store.processes, "batch", fanout.__version__, lambda: (), lambda: describe_activity(manager, dispatcher))
