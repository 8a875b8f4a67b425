"""Jobs in a program: many rows to many models, with progress, and results in the order of the rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import structlog
from typing_extensions import Unpack

from fanout.api.signatures import name_options
from fanout.config.settings import Settings, load_settings
from fanout.core.errors import ConfigError, Fault, RequestError
from fanout.core.sampling import SamplingOptions
from fanout.core.sockets import raise_file_limit
from fanout.dispatch.default_models import choose_default_models
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.dispatch.entries import Entry, Models, parse_entries
from fanout.dispatch.request import Request
from fanout.evaluate.scoring.declarations import parse_scorers, to_declaration
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.jobs.input_files import read_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Job, JobSpec, Progress
from fanout.jobs.manager import JobManager, open_job_manager
from fanout.jobs.output_formats import fill_columns
from fanout.jobs.result_records import JobResultJson, build_records
from fanout.jobs.worker import JobWorker
from fanout.observability import logs
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ENDED_STATES, JobState, Place
from fanout.store.opening import MEMORY, OFF, open_store

POLL_INTERVAL_S = 0.2
PAGE_ROWS = 128
Rows = Path | Iterable[str | Mapping[str, Any]]
"""A file as `fanout batch` takes it; or prompts, and rows such as `{"prompt": "…", "reference": "…"}`."""
OnProgress = Callable[[Progress], None]


class JobOptions(SamplingOptions, total=False):
    """Keyword arguments of a job."""

    template: str | None
    """The prompt, with a row's values as `{{name}}`."""
    system: str | None
    repeats: int
    """How often each model is sent each row."""
    scorers: Sequence[Mapping[str, Any]]
    """Declarations of scorers, as `POST /v1/jobs` takes them."""
    strict: bool
    stream: bool
    """Whether providers stream the answers, so that the time to first token is measured."""
    via: Literal["live", "batch"]
    """`batch`: through the providers' own batch APIs, which take up to a day and cost about half."""
    live_rest: bool
    """Whether calls that the batch APIs do not take or do not finish are sent at once."""
    self_fusions: bool
    """Whether every fusion's members are also fused with themselves, for the report."""
    max_cost_usd: float | None
    """The job stops before it costs more."""
    attempts: int | None
    concurrency: int | None
    name: str | None
    store: Path | str | None
    """A file that keeps the job, so that it can be resumed; by default it is gone with the program."""
    resume: str | None
    """Id of a job in `store` that goes on; its rows and models are those it has."""
    settings: Settings | None
    """By default those of `load_settings()`."""


@dataclass(frozen=True, slots=True, repr=False)
class JobResults:
    """The end of a job."""

    id: str
    state: JobState
    """`done`, or why it is unfinished: `stopped`, `expired`, `cancelled`."""
    reason: str | None
    progress: Progress
    results: Sequence[JobResultJson]
    """A flat record for each call, in the order of the rows."""

    def to_records(self) -> list[JobResultJson]:
        """Return the records, as pandas takes them."""
        return list(self.results)

    def __iter__(self) -> Iterator[JobResultJson]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"<JobResults {self.id}: {self.state}, {self.progress.answered:,} of {self.progress.job.units:,} calls answered>"


class RunningJob:
    """A job that runs while its context is open; iterate over it for its results, in the order of the rows."""

    def __init__(self, manager: JobManager, store: JobStore, job: Job, on_progress: OnProgress | None) -> None:
        self._manager, self._store, self._job, self._on_progress = manager, store, job, on_progress
        self._worker: JobWorker | None = None
        self._task: asyncio.Task[Job] | None = None

    @property
    def id(self) -> str:
        """Id by which the job can be resumed from its store."""
        return self._job.id

    @property
    def progress(self) -> Progress:
        """Progress at this moment."""
        return self._worker.progress if self._worker else Progress(self._job, {})

    def stop(self) -> None:
        """Send no more calls; those in flight are awaited."""
        if self._worker:
            self._worker.stop("stopped", "it was stopped")

    async def wait(self) -> JobResults:
        """Wait for the end of the job, and return its results."""
        results = [result async for result in self]
        progress = await self._manager.read_progress(self.id)
        return JobResults(self.id, progress.job.state, progress.job.reason, progress, results)

    async def __aiter__(self) -> AsyncIterator[JobResultJson]:
        """Yield the results in the order of the rows, each as soon as those before it are there."""
        after: Place | None = None
        expected = _count_places(self._job)
        place = next(expected, None)
        while True:
            has_ended = self._task is None or self._task.done()
            page = await self._store.results.list_results(self._job.number, after=after, limit=PAGE_ROWS)
            fresh = []
            for row in page:
                # One that is missing in between has not ended yet; at the end of the job it never will.
                if row.place != place and not has_ended:
                    break
                fresh.append(row)
                while place is not None and place <= row.place:
                    place = next(expected, None)
            for record in build_records(fresh):
                yield cast(JobResultJson, fill_columns(record))
            after = fresh[-1].place if fresh else after
            if has_ended and not fresh:
                return
            if not fresh and self._task:
                await asyncio.wait({self._task}, timeout=POLL_INTERVAL_S)

    def _accept_worker(self, worker: JobWorker) -> None:
        self._worker = worker

    async def _run(self) -> Job:
        job = await self._manager.run(self.id, self._accept_worker)
        self._job = job
        return job

    async def _report(self) -> None:
        while self._on_progress:
            if self._worker:
                self._on_progress(self.progress)
            await asyncio.sleep(POLL_INTERVAL_S)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[RunningJob]:
        if self._job.state not in ENDED_STATES:
            self._task = asyncio.create_task(self._run(), name="job")
        report = asyncio.create_task(self._report(), name="progress")
        try:
            yield self
            if self._task:
                self.stop()
                await self._task  # raises what the job raised
        finally:
            tasks = [task for task in (self._task, report) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._on_progress:
                self._on_progress(await self._manager.read_progress(self.id))


def _count_places(job: Job) -> Iterator[Place]:
    """Yield the places of all units of a job, in order."""
    repeats = max(job.spec.repeats, 1)
    entries = job.units // max(job.items * repeats, 1)
    for item in range(job.items):
        for entry in range(entries):
            for repeat in range(repeats):
                yield (item, entry, repeat)


@name_options(JobOptions)
async def run_job(
    rows: Rows = (), models: Models | None = None, *, on_progress: OnProgress | None = None, **options: Unpack[JobOptions]
) -> JobResults:
    """Send every row to every model, at the pace that each provider's account allows, and return all results.

    Args:
        rows: a file, or prompts and rows.
        models: see `Models`; by default the set `mine`, else some that are ready, else the embedded ones.
        on_progress: called a few times a second, and at the end.
        options: see `JobOptions`: a template, repeats, a maximum cost, sampling parameters, …

    Raises:
        ConfigError: the configuration or the store cannot be used.
        RequestError: a bad row or parameter; nothing was sent.
        StoreError: the store could not be written.
    """
    async with open_job(rows, models, on_progress=on_progress, **options) as job:
        return await job.wait()


@name_options(JobOptions)
@asynccontextmanager
async def open_job(
    rows: Rows = (), models: Models | None = None, *, on_progress: OnProgress | None = None, **options: Unpack[JobOptions]
) -> AsyncGenerator[RunningJob]:
    """Run a job while the context is open; leaving it early stops the job. Takes the arguments of `run_job`.

    Raises:
        ConfigError: the configuration or the store cannot be used.
        RequestError: a bad row or parameter; nothing was sent.
    """
    settings = options.pop("settings", None) or load_settings()
    location, resumed = options.pop("store", None), options.pop("resume", None)
    if not structlog.is_configured():  # else each job would print what a server logs
        logs.configure("error", settings.environment.log_format)
    if resumed and location is None:
        raise RequestError([Fault("resume", "needs `store`, the file that keeps the job")])
    async with open_store(str(location or MEMORY), shares_limits=None) as opened:
        if opened is None:
            raise ConfigError("store", [Fault("store", f"is `{OFF}`: name a file, or leave it out")])
        raise_file_limit()  # every call in flight holds a socket
        store = JobStore(opened.database)
        async with (
            open_dispatcher(settings, [opened.observe], sharing=opened.limits) as dispatcher,
            open_job_manager(store, dispatcher, open_scorer=make_scorer_factory(store, allow_functions=True)) as manager,
        ):
            if resumed:
                job = await manager.find_job(resumed)
                job = job if job.state == "done" else await manager.resume(resumed)
            else:
                job = await manager.create(_build_spec(models, settings, options), _read_rows(rows))
            await _prepare(dispatcher, job)
            async with RunningJob(manager, store, job, on_progress)._running() as running:
                yield running


def _build_spec(models: Models | None, settings: Settings, options: JobOptions) -> JobSpec:
    faults: list[Fault] = []
    entries = parse_entries(choose_default_models(settings).names if models is None else models, faults)
    if faults:
        raise RequestError(faults)
    named = (
        "template",
        "system",
        "repeats",
        "strict",
        "max_cost_usd",
        "attempts",
        "concurrency",
        "name",
        "stream",
        "via",
        "live_rest",
        "self_fusions",
    )
    fields = {name: options[name] for name in named if name in options}  # type: ignore[literal-required]
    others = {name: value for name, value in options.items() if name not in (*named, "scorers") and value is not None}
    rows = [entry.to_mapping() for entry in entries]
    scorers = tuple(to_declaration(scorer) for scorer in parse_scorers(tuple(options.get("scorers", ())), allow_functions=True))
    return JobSpec(models=tuple(rows), parameters=others, scorers=scorers, input={"name": "rows"}, **fields)


def _read_rows(rows: Rows) -> Iterator[InputRow | BadRow]:
    if isinstance(rows, Path):
        return read_rows(rows)
    return (InputRow(number, {"prompt": row} if isinstance(row, str) else row) for number, row in enumerate(rows, 1))


async def _prepare(dispatcher: Dispatcher, job: Job) -> None:
    """Prepare the models (the embedded ones train) before the job's clock starts, so that no call pays for it."""
    names = dict.fromkeys(str(row["model"]) for row in job.fingerprint.values())
    requests = [Request(entries=(Entry(name),), prompts=("",)) for name in names]
    await dispatcher.prepare([call for request in requests for call in dispatcher.plan(request)])
