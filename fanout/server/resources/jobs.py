"""`/v1/jobs`: rows of prompts × models in one request, their progress, their results, and what can still be done to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.sampling import AllSampling, at_most
from fanout.core.schema import FailureKind
from fanout.core.units import to_rfc3339, to_unix_seconds
from fanout.core.usage import WorkTotals
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs import output_files
from fanout.jobs.estimate import Estimate
from fanout.jobs.input_files import TYPED_FORMATS, choose_format, read_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import ENDED_STATES, Job, JobSpec, Progress, ResultGroup
from fanout.jobs.output_formats import RecordEncoder
from fanout.jobs.result_records import build_records
from fanout.rendering.encoding import encode_json
from fanout.server.lifecycle import BATCH_STORE, DISPATCHER, FILE_STORE, JOB_MANAGER, JOB_STORE, LIFECYCLE
from fanout.server.middleware import auth
from fanout.server.request_body import EntryCount, Metadata, ToEntryList, entries_schema, read_body
from fanout.server.resources.files import find_file
from fanout.server.resources.listing import ListQuery, page_response, parse_whole_number, read_query, requested_account
from fanout.server.resources.storage import needs_store
from fanout.server.responses import json_response
from fanout.store.file_reader import open_stored_file
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import JobState, ResultFilter
from fanout.store.usage.sums import ANSWERED

MAX_ITEMS = 100_000
MAX_REPEATS = 128
POLL_INTERVAL_S = 1.0
"""How often progress is looked at for whoever watches it."""
PING_INTERVAL_S = 10.0
BATCH_ROWS = 128
MAX_DEADLINE_S = 10**8
"""Of a deadline: three years."""
MEDIA_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def _moment(value: Any) -> Any:
    """Unix seconds of a deadline: so many seconds from now, or an RFC 3339 time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value <= MAX_DEADLINE_S:
            raise ValueError(f"{value:g} is not allowed: above 0, at most {MAX_DEADLINE_S:,} seconds from now")
        return time.time() + value
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise ValueError(f"`{value[:40]}` is not allowed: seconds from now, or a time with its zone, `2026-11-20T09:30:00Z`")
    return moment.timestamp()


def _ahead(moment: float) -> float:
    if moment <= time.time():
        raise ValueError("has passed")
    return moment


Deadline = Annotated[
    float,
    BeforeValidator(_moment, json_schema_input_type=Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | str),
    AfterValidator(_ahead),
    Field(le=253_402_300_740),
]


class JobSampling(AllSampling):
    """Sampling parameters; `null` is as if absent. Samples are a job's `repeats`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class JobEntry(JobSampling):
    """One model of a job, with parameters of its own."""

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)


class JobChanges(BaseModel):
    """What may be changed of a job without asking anything else."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    max_cost_usd: float | None = Field(None, gt=0)
    """What it may cost at most; it stops before it would cost more."""
    deadline: Deadline | None = None
    """When what is not done expires: seconds from now, or an RFC 3339 time."""
    attempts: int | None = Field(None, ge=1, le=10)
    """Most tries of a call; absent: as the provider's row has it."""
    concurrency: int | None = Field(None, ge=1, le=100_000)
    """Most calls at once for each account; absent: as many as it bears."""

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be a JSON object")  # noqa: TRY004 - only this one is a wrong field to pydantic
        return value

    def changed(self) -> dict[str, Any]:
        """Fields of `Spec`."""
        return {name: getattr(self, name) for name in self.model_fields_set & JobChanges.model_fields.keys()}


class ResumeBody(JobChanges):
    """How a job goes on."""

    fork: bool | None = None
    """Asks everything anew in a new job, where its models mean something else by now."""


class RetryBody(JobChanges):
    """Which failures are asked again."""

    kinds: Annotated[list[FailureKind], Field(max_length=32)] | None = None
    """Of these kinds alone: `rate_limit`, `timeout`, …; absent: all."""


class JobBody(JobChanges):
    """A batch comparison: every row is asked of every model."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ITEMS), at_most(MAX_ITEMS, "rows")] | None = None
    """The rows: each has `prompt` or `messages`, or what the template's variables stand for; beside it `system`,
    `reference`, `custom_id`, sampling parameters of its own, and columns of yours."""
    input_file_id: str | None = Field(None, min_length=1, max_length=256)
    """Instead of `items`, an uploaded file of rows: JSONL, CSV, TSV or Parquet, by its name."""
    fork_of: str | None = Field(None, min_length=1, max_length=256)
    """Instead of everything else but cost, deadline and pace: a job whose rows and models are asked anew."""
    models: Annotated[list[JobEntry], ToEntryList, EntryCount, entries_schema("JobEntry")] | None = None
    """A model, a set, an object with a model and parameters of its own, or a list of these."""
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    """How often each model is asked each row."""
    template: str | None = Field(None, max_length=100_000)
    """The prompt, with the row's columns as `{{name}}`."""
    system: str | None = None
    """A system message, for rows that have none."""
    parameters: JobSampling | None = None
    """Sampling parameters of all models and rows that have none of their own."""
    strict_parameters: bool = False
    """What a model cannot take fails its call instead of being ignored or adjusted."""
    cache: bool = False
    """Answers that another job was given to the same question are taken from the store."""
    name: str | None = Field(None, max_length=256)
    """Yours, for people."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours."""
    account_id: str | None = Field(None, max_length=256)
    """Whom it is counted for; absent: as the header `x-selected-account-id` has it."""
    dry_run: bool = False
    """Answers with what would be asked, and what that may cost; nothing is kept or sent."""

    def faults(self) -> list[Fault]:
        """What is wrong between fields."""
        sources = [name for name in ("items", "input_file_id", "fork_of") if getattr(self, name) is not None]
        if not sources:
            return [Fault("items", "is required, or `input_file_id`, or `fork_of`", "missing_required_parameter")]
        faults = [Fault(name, f"stands beside `{sources[0]}`: one of them is allowed") for name in sources[1:]]
        if self.fork_of is not None:
            others = self.model_fields_set - JobChanges.model_fields.keys() - {"fork_of", *sources}
            return faults + [Fault(name, "is the forked job's own: leave it out") for name in sorted(others)]
        if self.models is None:
            faults.append(Fault("models", "is required", "missing_required_parameter"))
        return faults

    def spec(self, given: Mapping[str, Any], *, typed: bool) -> JobSpec:
        """The job of these rows.

        Args:
            given: what is known of its input.
        """
        return JobSpec(
            models=tuple(entry.model_dump(exclude_unset=True) for entry in self.models or ()),
            repeats=self.repeats,
            template=self.template,
            system=self.system,
            parameters=self.parameters.model_dump(exclude_unset=True) if self.parameters else {},
            strict=self.strict_parameters,
            max_cost_usd=self.max_cost_usd,
            deadline=self.deadline,
            attempts=self.attempts,
            concurrency=self.concurrency,
            cache=self.cache,
            name=self.name,
            metadata=self.metadata or {},
            input=given,
            typed=typed,
            unattended=True,
        )


class JobsQuery(ListQuery):
    """Which jobs are listed."""

    state: JobState | None = None
    """Only jobs in this state."""


def _flag(text: Any) -> Any:
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


def _cursor(text: Any) -> Any:
    parts = text.split(".") if isinstance(text, str) else ()
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise ValueError("is not allowed: the `next` of the page before")
    return tuple(int(part) for part in parts)


class ResultsFilter(BaseModel):
    """Which results are asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    failed: Annotated[bool | None, BeforeValidator(_flag)] = None
    """`true`: only failures; `false`: only answers."""
    model: str | None = Field(None, max_length=256)
    """Only this entry's, by its label."""
    kind: FailureKind | None = None
    """Only failures of this kind."""
    different: Annotated[bool | None, BeforeValidator(_flag)] = None
    """`true`: only of rows that were answered differently."""

    def filter(self) -> ResultFilter:
        return ResultFilter(self.failed, self.model, self.kind, different=bool(self.different))


class ResultsQuery(ResultsFilter):
    """Which page of the results is asked for."""

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(100, ge=1, le=1_000)
    """How many at most."""
    after: Annotated[
        tuple[int, int, int] | None,
        BeforeValidator(
            _cursor, json_schema_input_type=Annotated[str, Field(pattern="^[0-9]{1,18}[.][0-9]{1,18}[.][0-9]{1,18}$")]
        ),
    ] = None
    """The `next` of the page before."""


# Taking in


@needs_store
async def create_job(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/jobs`."""
    asked = await read_body(request, JobBody)
    auth.refuse_caller_credentials(request)
    if faults := asked.faults():
        raise RequestError(faults)
    manager = request.app[JOB_MANAGER]
    if asked.fork_of is not None:
        return _created(await manager.progress((await _forked(request, asked.fork_of, asked.changed())).id))
    source, given, typed = await _input(request, asked)
    spec = asked.spec(given, typed=typed)
    try:
        if asked.dry_run:
            return json_response(render_estimate(await manager.estimate(spec, source), request.app[DISPATCHER]))
        account_id = auth.account_id(request) if asked.account_id is None else asked.account_id
        job = await manager.create(spec, source, account_id=account_id)
    except RequestError as error:
        raise RequestError([_placed(fault, asked) for fault in error.faults]) from None
    manager.notify_queued()
    return _created(await manager.progress(job.id))


async def _input(request: web.Request, asked: JobBody) -> tuple[Iterable[InputRow | BadRow], Mapping[str, Any], bool]:
    """The rows, what is known of their source, and whether it tells numbers from text."""
    if asked.items is not None:
        return (InputRow(number, values) for number, values in enumerate(asked.items, 1)), {}, True
    file = await find_file(request.app[FILE_STORE], asked.input_file_id or "", "input_file_id")
    try:
        format_ = choose_format(file.filename)
        source = read_rows(open_stored_file(request.app[FILE_STORE], file.id, file.bytes), format_)
    except RequestError as error:
        raise RequestError([Fault("input_file_id", fault.message, fault.kind) for fault in error.faults]) from None
    return source, {"name": file.filename, "file": file.id}, format_ in TYPED_FORMATS


def _placed(fault: Fault, asked: JobBody) -> Fault:
    """Where a bad row stands: `items[2].prompt`, where it came in the request."""
    line, _, field = fault.path.partition(": ")
    if asked.items is None or not line.startswith("line "):
        return fault
    place = f"items[{int(line.removeprefix('line ')) - 1}]"
    return Fault(f"{place}.{field}" if field else place, fault.message, fault.kind)


def _created(progress: Progress) -> web.Response:
    response = json_response(render_job(progress))
    response.set_status(201)
    response.headers["Location"] = f"/v1/jobs/{progress.job.id}"
    return response


# Looking


@needs_store
async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/jobs`."""
    asked, manager = read_query(request, JobsQuery), request.app[JOB_MANAGER]
    before = (await manager.job(asked.after)).created if asked.after else None
    states = (asked.state,) if asked.state else ()
    found = await manager.list_jobs(
        limit=asked.limit + 1, before=before, account_id=requested_account(request, asked), states=states
    )
    shown = [render_job(await manager.progress(job.id)) for job in found[: asked.limit]]
    return page_response(shown, has_more=len(found) > asked.limit)


@needs_store
async def get_job(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/jobs/{job_id}`."""
    return await _answered(request)


async def _answered(request: web.Request) -> web.Response:
    return json_response(render_job(await request.app[JOB_MANAGER].progress(request.match_info["job_id"])))


@needs_store
async def list_results(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/jobs/{job_id}/results`."""
    asked = read_query(request, ResultsQuery)
    job = await request.app[JOB_MANAGER].job(request.match_info["job_id"])
    found = await request.app[JOB_STORE].results.list_results(
        job.number, after=asked.after, limit=asked.limit + 1, filter_=asked.filter()
    )
    shown, more = found[: asked.limit], len(found) > asked.limit
    lines = await asyncio.to_thread(lambda: output_files.make_encoder("jsonl").encode(list(build_records(shown))))
    cursor = f"{shown[-1].item}.{shown[-1].entry}.{shown[-1].repeat}" if more else None
    end = encode_json({"has_more": more, "next": cursor})[1:]
    data = lines.rstrip(b"\n").replace(b"\n", b",")
    return web.Response(body=b'{"object":"list","data":[' + data + b"]," + end, content_type="application/json")


@needs_store
async def export_results(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/jobs/{job_id}/results.{format}`: all results, in memory that does not grow with them."""
    asked, format_ = read_query(request, ResultsFilter), request.match_info["format"]
    job = await request.app[JOB_MANAGER].job(request.match_info["job_id"])
    encoder = output_files.make_encoder(format_)
    headers = {
        "Content-Type": MEDIA_TYPES[format_],
        "Content-Disposition": f'attachment; filename="{job.id}.{format_}"',
        "X-Content-Type-Options": "nosniff",
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    async for piece in _exported(request.app[JOB_STORE], job, asked.filter(), encoder):
        if piece:
            await response.write(piece)
    await response.write_eof()
    return response


async def _exported(store: JobStore, job: Job, which: ResultFilter, encoder: RecordEncoder) -> AsyncIterator[bytes]:
    after = None
    while found := await store.results.list_results(job.number, after=after, limit=BATCH_ROWS, filter_=which):
        after = found[-1].place
        yield await asyncio.to_thread(lambda shown: encoder.encode(list(build_records(shown))), found)
    yield await asyncio.to_thread(encoder.close)


@needs_store
async def stream_job(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/jobs/{job_id}/events`: the job as often as it changes, until it has ended or the server stops."""
    id, manager = request.match_info["job_id"], request.app[JOB_MANAGER]
    progress = await manager.progress(id)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    told, said = b"", time.monotonic()
    while True:
        now = encode_json(render_job(progress))
        if now != told:
            await response.write(b"data: " + now + b"\n\n")
            told, said = now, time.monotonic()
        elif time.monotonic() - said >= PING_INTERVAL_S:
            await response.write(b": ping\n\n")
            said = time.monotonic()
        if progress.job.state in ENDED_STATES:
            await response.write(b"data: [DONE]\n\n")
            break
        if request.app[LIFECYCLE].is_stopping:
            break  # without the end: whoever watches asks again, when the job goes on
        await asyncio.sleep(POLL_INTERVAL_S)
        progress = await manager.progress(id)
    await response.write_eof()
    return response


# What its user wants of it


@needs_store
async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/jobs/{job_id}/cancel`."""
    job = await request.app[JOB_MANAGER].job(request.match_info["job_id"])
    if job.state == "loading" or job.state in ("done", "expired"):
        raise RequestError([Fault("job_id", f"job `{job.id}` is {job.state}: there is nothing to cancel", "wrong_state")])
    await request.app[BATCH_STORE].update(job.id, {"cancelling": time.time()})
    await request.app[JOB_MANAGER].cancel(job.id)
    return await _answered(request)


@needs_store
async def resume_job(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/jobs/{job_id}/resume`."""
    asked = await read_body(request, ResumeBody)
    id = request.match_info["job_id"]
    if asked.fork:
        return _created(await request.app[JOB_MANAGER].progress((await _forked(request, id, asked.changed())).id))
    await request.app[JOB_MANAGER].resume(id, **asked.changed())
    await _reopened(request, id)
    return await _answered(request)


@needs_store
async def retry_job(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/jobs/{job_id}/retry`."""
    asked = await read_body(request, RetryBody)
    id = request.match_info["job_id"]
    await request.app[JOB_MANAGER].retry(id, asked.kinds or (), **asked.changed())
    await _reopened(request, id)
    return await _answered(request)


async def _forked(request: web.Request, id: str, changes: Mapping[str, Any]) -> Job:
    job = await request.app[JOB_MANAGER].job(id)
    if job.spec.kind == "requests":
        sentence = f"`{job.id}` is a batch: make another one of its file, `{job.spec.input.get('file')}`"
        raise RequestError([Fault("fork", sentence, "wrong_state")])
    if job.state == "loading":
        raise RequestError([Fault("fork", f"job `{job.id}` is loading", "wrong_state")])
    return await request.app[JOB_MANAGER].resume(id, fork=True, **changes)


async def _reopened(request: web.Request, id: str) -> None:
    """A batch whose job goes on has not come to its end."""
    await request.app[BATCH_STORE].update(id, {"settled": None, "cancelling": None, "output_file": None, "error_file": None})


# Its form


def render_job(progress: Progress) -> dict[str, Any]:
    """A job as it stands in answers. What is not known is null."""
    job, spec = progress.job, progress.job.spec
    return {
        "id": job.id,
        "object": "job",
        "created_at": int(job.created),
        "started_at": to_unix_seconds(job.started),
        "ended_at": to_unix_seconds(job.ended),
        "account_id": job.account_id or None,
        "name": spec.name,
        "kind": spec.kind,
        "state": job.state,
        "reason": job.reason,
        "models": [dict(entry) for entry in spec.models],
        "repeats": spec.repeats,
        "template": spec.template,
        "system": spec.system,
        "parameters": dict(spec.parameters),
        "strict_parameters": spec.strict,
        "endpoint": spec.endpoint,
        "max_cost_usd": spec.max_cost_usd,
        "deadline": to_rfc3339(spec.deadline, "seconds"),
        "attempts": spec.attempts,
        "concurrency": spec.concurrency,
        "cache": spec.cache,
        "input": dict(spec.input),
        "forked_from": job.forked_from,
        "metadata": dict(spec.metadata),
        "items": job.items,
        "calls": job.units,
        "progress": _progress_json(progress),
        "counts": _counts_json(progress.counts),
    }


def _progress_json(progress: Progress) -> dict[str, Any]:
    cost, left = progress.cost_usd, progress.remaining_usd
    rate, left_s = progress.rate, progress.remaining_s
    return {
        "ended": progress.ended,
        "answered": progress.answered,
        "failed": progress.ended - progress.answered,
        "left": progress.remaining,
        "running": progress.running,
        "waiting": progress.waiting,
        "calls_per_second": None if rate is None else round(rate, 3),
        "left_s": None if left_s is None else round(left_s, 1),
        "cost_usd": None if cost is None else round(cost, 12),
        "cost_unknown": progress.cost_unknown,
        "left_usd": None if left is None else round(left, 12),
    }


def _counts_json(counts: Mapping[ResultGroup, WorkTotals]) -> list[dict[str, Any]]:
    """Sums by model, each with its failures by kind."""
    found = []
    for model in sorted({group.model for group in counts}):
        mine = {group.result: totals for group, totals in counts.items() if group.model == model}
        total = WorkTotals()
        for totals in mine.values():
            total.add(totals)
        found.append(
            {
                "model": model,
                "ended": total.calls,
                "answered": mine[ANSWERED].calls if ANSWERED in mine else 0,
                "failures": {kind: totals.calls for kind, totals in sorted(mine.items()) if kind != ANSWERED and totals.calls},
                "attempts": total.attempts,
                "prompt_tokens": total.input_tokens,
                "completion_tokens": total.output_tokens,
                "cached_tokens": total.cached_tokens,
                "unknown_usage": total.unknown_usage,
                "cost_usd": None if total.cost_usd is None else round(total.cost_usd, 12),
                "cost_unknown": total.cost_unknown,
                "mean_ms": round(total.total_ms / total.calls) if total.calls else None,
            }
        )
    return found


def render_estimate(estimate: Estimate, dispatcher: Dispatcher) -> dict[str, Any]:
    """What a job would ask."""
    least_s = estimate.min_duration_s(dispatcher.settings.providers)
    return {
        "object": "job.estimate",
        "items": estimate.items,
        "calls": estimate.calls,
        "models": [
            {
                "model": name,
                "calls": model.calls,
                "prompt_tokens": model.input_tokens,
                "completion_tokens": model.output_tokens,
                "guessed": model.guessed,
                "cost_usd": None if model.cost_usd is None else round(model.cost_usd, 12),
            }
            for name, model in estimate.models.items()
        ],
        "cost_usd": None if estimate.cost_usd is None else round(estimate.cost_usd, 12),
        "cost_unknown": list(estimate.cost_unknown),
        "least_s": None if least_s is None else round(least_s, 1),
    }
