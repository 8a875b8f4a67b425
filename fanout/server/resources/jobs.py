"""`/v1/jobs`: rows of prompts × models in one request; their progress, and what can be done to them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.json_text import JsonObject
from fanout.core.units import to_rfc3339, to_unix_seconds
from fanout.core.usage import WorkTotals
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.estimate import Estimate
from fanout.jobs.input_files import TYPED_FORMATS, choose_format, read_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Progress, ResultGroup
from fanout.server.lifecycle import BATCH_STORE, DISPATCHER, FILE_STORE, JOB_MANAGER
from fanout.server.middleware import auth
from fanout.server.request_body import read_body
from fanout.server.resources.job_bodies import JobBody, ResumeBody, RetryBody
from fanout.server.resources.listing import ListQuery, choose_account, page_response, read_query
from fanout.server.resources.storage import needs_store
from fanout.server.responses import json_response
from fanout.store.file_reader import find_file, open_stored_file
from fanout.store.jobs.records import JobState
from fanout.store.usage.sums import ANSWERED


class JobsQuery(ListQuery):
    """The part of the list of jobs to show."""

    state: JobState | None = None
    """Only jobs in this state."""


class RowSource(NamedTuple):
    """The rows of a new job."""

    rows: Iterable[InputRow | BadRow]
    source: Mapping[str, str]
    """Name and id of the uploaded file."""
    typed: bool
    """Numbers are distinguished from text."""


@needs_store
async def create_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs`."""
    body = await read_body(request, JobBody)
    auth.refuse_caller_credentials(request)
    if faults := body.find_faults():
        raise RequestError(faults)
    if body.fork_of is not None:
        return await _fork_job(request, body.fork_of, body.to_changes())
    manager = request.app[JOB_MANAGER]
    rows, source, typed = await _open_input(request, body)
    spec = body.to_spec(source, typed=typed)
    try:
        if body.dry_run:
            return json_response(render_estimate(await manager.estimate(spec, rows), request.app[DISPATCHER]))
        account_id = auth.account_id(request) if body.account_id is None else body.account_id
        job = await manager.create(spec, rows, account_id=account_id)
    except RequestError as error:
        raise RequestError([_locate(fault, body) for fault in error.faults]) from None
    manager.supervisor.notify()
    return await _respond_created(request, job.id)


async def _open_input(request: web.Request, body: JobBody) -> RowSource:
    if body.items is not None:
        return RowSource((InputRow(number, values) for number, values in enumerate(body.items, 1)), {}, typed=True)
    file = await find_file(request.app[FILE_STORE], body.input_file_id or "", "input_file_id")
    try:
        format_ = choose_format(file.filename)
        rows = read_rows(open_stored_file(request.app[FILE_STORE], file.id, file.bytes), format_)
    except RequestError as error:
        raise RequestError([Fault("input_file_id", fault.message, fault.kind) for fault in error.faults]) from None
    return RowSource(rows, {"name": file.filename, "file": file.id}, typed=format_ in TYPED_FORMATS)


def _locate(fault: Fault, body: JobBody) -> Fault:
    """Write the place of a bad row as the request has it: `items[2].prompt` instead of `line 3: prompt`."""
    line, _, field = fault.path.partition(": ")
    if body.items is None or not line.startswith("line "):
        return fault
    place = f"items[{int(line.removeprefix('line ')) - 1}]"
    return Fault(f"{place}.{field}" if field else place, fault.message, fault.kind)


@needs_store
async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs`."""
    query, manager = read_query(request, JobsQuery), request.app[JOB_MANAGER]
    found = await manager.list_jobs(
        limit=query.limit + 1,
        before=(await manager.find_job(query.after)).created if query.after else None,
        account_id=choose_account(request, query),
        states=(query.state,) if query.state else (),
    )
    shown = [render_job(await manager.read_progress(job.id)) for job in found[: query.limit]]
    return page_response(shown, has_more=len(found) > query.limit)


@needs_store
async def get_job(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}`."""
    return await _respond_job(request, request.match_info["job_id"])


@needs_store
async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/cancel`."""
    job = await request.app[JOB_MANAGER].find_job(request.match_info["job_id"])
    if job.state in ("loading", "done", "expired"):
        raise RequestError([Fault("job_id", f"job `{job.id}` is {job.state}: there is nothing to cancel", "wrong_state")])
    await request.app[BATCH_STORE].update(job.id, {"cancelling": time.time()})
    await request.app[JOB_MANAGER].cancel(job.id)
    return await _respond_job(request, job.id)


@needs_store
async def resume_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/resume`."""
    body, job_id = await read_body(request, ResumeBody), request.match_info["job_id"]
    if body.fork:
        return await _fork_job(request, job_id, body.to_changes())
    await request.app[JOB_MANAGER].resume(job_id, **body.to_changes())
    await _reopen_batch(request, job_id)
    return await _respond_job(request, job_id)


@needs_store
async def retry_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/retry`."""
    body, job_id = await read_body(request, RetryBody), request.match_info["job_id"]
    await request.app[JOB_MANAGER].retry(job_id, body.kinds or (), **body.to_changes())
    await _reopen_batch(request, job_id)
    return await _respond_job(request, job_id)


async def _reopen_batch(request: web.Request, job_id: str) -> None:
    """Forget the end of the batch whose job this is, if it is one's, for the job goes on."""
    await request.app[BATCH_STORE].update(
        job_id, {"settled": None, "cancelling": None, "output_file": None, "error_file": None}
    )


async def _fork_job(request: web.Request, job_id: str, changes: JsonObject) -> web.Response:
    manager = request.app[JOB_MANAGER]
    job = await manager.find_job(job_id)
    if job.spec.kind == "requests":
        sentence = f"`{job.id}` is a batch: make another one of its file, `{job.spec.input.get('file')}`"
        raise RequestError([Fault("fork", sentence, "wrong_state")])
    if job.state == "loading":
        raise RequestError([Fault("fork", f"job `{job.id}` is loading", "wrong_state")])
    fork = await manager.resume(job_id, fork=True, **changes)
    return await _respond_created(request, fork.id)


async def _respond_created(request: web.Request, job_id: str) -> web.Response:
    response = await _respond_job(request, job_id, 201)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return response


async def _respond_job(request: web.Request, job_id: str, status: int = 200) -> web.Response:
    return json_response(render_job(await request.app[JOB_MANAGER].read_progress(job_id)), status)


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
    """Return the calls that a job would make, and their estimated cost."""
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
