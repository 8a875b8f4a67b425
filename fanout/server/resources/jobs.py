"""`/v1/jobs`: rows of prompts × models in one request, with progress, cancellation, resumption and retries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from aiohttp import web

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.threads import run_in_thread
from fanout.evaluate.judging.checks import check_judges
from fanout.evaluate.scoring.declarations import parse_scorers, to_declaration
from fanout.evaluate.stopping.opening import check_plan
from fanout.jobs.input_files import TYPED_FORMATS, choose_format, read_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.rendering.job import JobEstimateJson, JobJson, JobListJson, render_estimate, render_job
from fanout.server.accounts.callers import find_caller
from fanout.server.accounts.quotas import bound_new_job, check_fork, find_room_for_job, take_turn
from fanout.server.lifecycle import BATCH_STORE, DISPATCHER, FILE_STORE, JOB_MANAGER
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import (
    INVALID_PARAMETERS,
    JSON,
    Answers,
    Endpoint,
    StatusAnswer,
    list_body_error_answers,
    list_store_answers,
)
from fanout.server.request_body import read_body
from fanout.server.resources.job_bodies import JobBody, ResumeBody, RetryBody, locate_fault
from fanout.server.resources.listing import ListQuery, page_response, read_query
from fanout.server.resources.storage import find_own_file, find_own_job, needs_store
from fanout.server.responses import json_response
from fanout.store.files import open_stored_file
from fanout.store.jobs.records import JobState


class JobsQuery(ListQuery):
    """The part of the list of jobs to show."""

    state: JobState | None = None
    """Only jobs in this state."""


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
    # In a thread, because the packages of some scorers are slow to import.
    scorers = await run_in_thread("bodies", parse_scorers, body.scorers or (), allow_functions=False)
    rows, source, typed = await _open_input(request, body)
    spec = body.to_spec(source, [to_declaration(scorer) for scorer in scorers], typed=typed)
    check_judges(request.app[DISPATCHER], scorers)
    check_plan(spec, scorers)
    try:
        if body.dry_run:  # after the same checks as a real job, so that no estimate is given for a job that would be refused
            return json_response(
                render_estimate(await manager.estimate(spec, rows), request.app[DISPATCHER].settings.providers)
            )
        account_id = auth.choose_account(request, body.account_id)
        spec = replace(spec, key_id=find_caller(request).key_id)
        async with take_turn(request):
            rows = await bound_new_job(request, rows, "items" if body.items is not None else "input_file_id")
            job = await manager.create(spec, rows, account_id=account_id)
    except RequestError as error:
        raise RequestError([locate_fault(fault, body) for fault in error.faults]) from None
    manager.supervisor.notify()  # otherwise the job would start only with the next poll
    return await _respond_with_location(request, job.id)


async def _open_input(request: web.Request, body: JobBody) -> tuple[Iterable[InputRow | BadRow], Mapping[str, str], bool]:
    """Return the rows, name and id of their uploaded file, and whether numbers are distinguished from text."""
    if body.items is not None:
        return (InputRow(number, values) for number, values in enumerate(body.items, 1)), {}, True
    file = await find_own_file(request, body.input_file_id or "", "input_file_id")
    try:
        format_ = choose_format(file.filename)
        rows = read_rows(open_stored_file(request.app[FILE_STORE], file.id, file.bytes), format_)
    except RequestError as error:
        raise RequestError([Fault("input_file_id", fault.message, fault.kind) for fault in error.faults]) from None
    return rows, {"name": file.filename, "file": file.id}, format_ in TYPED_FORMATS


@needs_store
async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs`."""
    query, manager = read_query(request, JobsQuery), request.app[JOB_MANAGER]
    found = await manager.list_jobs(
        limit=query.limit + 1,  # one more than shown tells if there is another page
        before=(await find_own_job(request, query.after)).created if query.after else None,
        account_id=auth.choose_account(request, query.account_id),
        states=(query.state,) if query.state else (),
    )
    shown = await manager.read_progress_of(found[: query.limit])
    ids = [progress.job.id for progress in shown]
    return await page_response(shown, render_job, ids, has_more=len(found) > query.limit)


@needs_store
async def get_job(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}`."""
    return await _respond_job(request, (await find_own_job(request)).id)


@needs_store
async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/cancel`."""
    job = await find_own_job(request)
    if job.state in ("done", "expired"):
        raise RequestError([Fault("job_id", f"job `{job.id}` is {job.state}: there is nothing to cancel", "wrong_state")])
    # First, so that the job's batch, if any, shows `cancelling` even if the process dies before the next line.
    await request.app[BATCH_STORE].update(job.id, {"cancelling": time.time()})
    return json_response(render_job(await request.app[JOB_MANAGER].cancel(job.id)))


@needs_store
async def resume_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/resume`."""
    body, job_id = await read_body(request, ResumeBody), (await find_own_job(request)).id
    if body.fork:
        return await _fork_job(request, job_id, body.to_changes())
    # The job first: a batch reopened while its job is still ended would be settled again at once.
    async with take_turn(request):
        await find_room_for_job(request, "job_id")
        await request.app[JOB_MANAGER].resume(job_id, **body.to_changes(), key_id=find_caller(request).key_id)
    await _reopen_batch(request, job_id)
    return await _respond_job(request, job_id)


@needs_store
async def retry_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/retry`."""
    body, job_id = await read_body(request, RetryBody), (await find_own_job(request)).id
    changes = {**body.to_changes(), "key_id": find_caller(request).key_id}
    async with take_turn(request):
        await find_room_for_job(request, "job_id")
        await request.app[JOB_MANAGER].retry(job_id, body.kinds or (), **changes)
    await _reopen_batch(request, job_id)
    return await _respond_job(request, job_id)


async def _reopen_batch(request: web.Request, job_id: str) -> None:
    # The batch of a resumed job has not ended; the worker settles it again. Jobs without a batch are not affected.
    await request.app[BATCH_STORE].update(
        job_id, {"settled": None, "cancelling": None, "output_file": None, "error_file": None}
    )


async def _fork_job(request: web.Request, job_id: str, changes: JsonObject) -> web.Response:
    manager = request.app[JOB_MANAGER]
    job = await find_own_job(request, job_id)
    if job.spec.kind == "requests":
        sentence = f"`{job.id}` is a batch: make another one of its file, `{job.spec.input.get('file')}`"
        raise RequestError([Fault("fork", sentence, "wrong_state")])
    if job.state == "loading":
        raise RequestError([Fault("fork", f"job `{job.id}` is loading", "wrong_state")])
    async with take_turn(request):
        await check_fork(request, job.items)
        fork = await manager.resume(job_id, fork=True, **changes, key_id=find_caller(request).key_id)
    return await _respond_with_location(request, fork.id)


async def _respond_with_location(request: web.Request, job_id: str) -> web.Response:
    response = await _respond_job(request, job_id, 201)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return response


async def _respond_job(request: web.Request, job_id: str, status: int = 200) -> web.Response:
    return json_response(render_job(await request.app[JOB_MANAGER].read_progress(job_id)), status)


JOB_ID = {"job_id": ("Id of the job.", "job_0123456789abcdef0123456789abcdef")}
MISSING = "There is no such job."
CONFLICT = "The job is in a state that does not allow it, or its models have changed since: every difference is named."
WRONG_FIELDS = "Wrong fields, all of them named in `details`."
ACCOUNT = ("x-selected-account-id",)


def _describe_created_job(description: str) -> Answers:
    return {201: StatusAnswer(description, {JSON: JobJson}, headers=("Location",))}


ENDPOINTS = (
    Endpoint(
        "POST /v1/jobs",
        create_job,
        id="create_job",
        tag="Jobs",
        summary="Ask many prompts of many models",
        description="Every row of `items`, or of an uploaded file, is sent to every model, `repeats` times, at the pace that "
        "each account bears. The whole input is checked first: a bad row is named with its line, and then nothing is sent. "
        "An answered call is never sent again, even after a restart of the server. Keys of your own are not accepted.",
        body=JobBody,
        examples={
            "two prompts, two models": {
                "items": [{"prompt": "The return statement"}, {"prompt": "A class definition"}],
                "models": ["local/ngram-3", "local/ngram-5"],
                "parameters": {"max_tokens": 20, "seed": 7},
            },
            "a template, and what it would cost": {
                "items": [{"word": "return", "reference": "a statement"}, {"word": "class"}],
                "template": "The {{word}} statement",
                "models": "embedded",
                "repeats": 3,
                "dry_run": True,
            },
        },
        headers=ACCOUNT,
        answers={
            **list_store_answers(
                JobEstimateJson,
                "With `dry_run`: what would be sent.",
                invalid="Wrong fields or rows, all of them named in `details`; or no file has that id.",
                missing="There is no such file or job, named by `input_file_id` or `fork_of`.",
                conflict=CONFLICT,
            ),
            **_describe_created_job("The job, which waits to be run."),
            **list_body_error_answers(),
        },
    ),
    Endpoint(
        "GET /v1/jobs",
        list_jobs,
        id="jobs",
        tag="Jobs",
        summary="All jobs",
        description="The newest first, batches among them.",
        query=JobsQuery,
        headers=ACCOUNT,
        answers=list_store_answers(
            JobListJson, "A page of them.", invalid=INVALID_PARAMETERS, missing="There is no such job, named by `after`."
        ),
    ),
    Endpoint(
        "GET /v1/jobs/{job_id}",
        get_job,
        id="job",
        tag="Jobs",
        summary="One job, and how far it is",
        path_parameters=JOB_ID,
        answers=list_store_answers(JobJson, "The job.", missing=MISSING),
    ),
    Endpoint(
        "POST /v1/jobs/{job_id}/cancel",
        cancel_job,
        id="cancel_job",
        tag="Jobs",
        summary="Cancel a job",
        description="Nothing more is sent; calls in flight are waited for, and kept. The job can be resumed. "
        "One whose input is still being read is gone.",
        path_parameters=JOB_ID,
        answers=list_store_answers(JobJson, "The job.", missing=MISSING, conflict="It has ended."),
    ),
    Endpoint(
        "POST /v1/jobs/{job_id}/resume",
        resume_job,
        id="resume_job",
        tag="Jobs",
        summary="Go on with a job",
        description="A job that was stopped, cancelled or has expired goes on where it was; what has ended stays. Fields that "
        "are given replace the job's own. If its models have changed since, it does not go on: `fork` sends all rows again, "
        "in a new job.",
        path_parameters=JOB_ID,
        body=ResumeBody,
        answers={
            **list_store_answers(
                JobJson, "The job, which waits to be run.", invalid=WRONG_FIELDS, missing=MISSING, conflict=CONFLICT
            ),
            **_describe_created_job("With `fork`: the new job."),
            **list_body_error_answers(),
        },
    ),
    Endpoint(
        "POST /v1/jobs/{job_id}/retry",
        retry_job,
        id="retry_job",
        tag="Jobs",
        summary="Ask again what has failed",
        description="All failures of a job that has ended, or those of some kinds; an answered call is never sent again.",
        path_parameters=JOB_ID,
        body=RetryBody,
        answers={
            **list_store_answers(
                JobJson, "The job, which waits to be run.", invalid=WRONG_FIELDS, missing=MISSING, conflict=CONFLICT
            ),
            **list_body_error_answers(),
        },
    ),
)
