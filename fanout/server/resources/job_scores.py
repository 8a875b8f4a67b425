"""`/v1/jobs/{job_id}/scores`: scorers applied to stored answers."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from fanout.core.threads import run_in_thread
from fanout.evaluate.judging.checks import check_judges
from fanout.evaluate.judging.judging import JUDGE, summarize_scores
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.evaluate.scoring.scoring import score_results
from fanout.jobs.job import Job, build_state_error
from fanout.rendering.scores import JobScoresJson, render_scores
from fanout.server.accounts.callers import find_caller
from fanout.server.lifecycle import DISPATCHER, JOB_MANAGER, JOB_STORE, JUDGING
from fanout.server.openapi.endpoint import Endpoint, list_body_error_answers, list_store_answers
from fanout.server.request_body import read_body
from fanout.server.resources.job_bodies import ScoresBody
from fanout.server.resources.jobs import JOB_ID, MISSING, WRONG_FIELDS
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.server.responses import json_response
from fanout.store.jobs.records import JobChange


@needs_store
async def score_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/scores`."""
    body = await read_body(request, ScoresBody)
    job = await find_own_job(request)
    scorers = await run_in_thread("bodies", parse_scorers, body.scorers, allow_functions=False)
    check_judges(request.app[DISPATCHER], scorers)
    store = request.app[JOB_STORE]
    if any(scorer.type == JUDGE for scorer in scorers):
        job = await _take_over(request, job)
    await score_results(store, job.number, scorers)
    if await request.app[JUDGING].advance(job):
        request.app[JOB_MANAGER].supervisor.notify()
    return json_response(render_scores(job.id, *await summarize_scores(store, job)))


async def _take_over(request: web.Request, job: Job) -> Job:
    """Return a job whose judges are paid by the caller's key, within its models and its budget, and by no other's."""
    key_id = find_caller(request).key_id
    if job.spec.key_id == key_id:
        return job
    change: JobChange = {"spec": replace(job.spec, key_id=key_id).to_json()}
    if job.state != "done" or not await request.app[JOB_STORE].update(job.number, change, states=("done",)):
        raise build_state_error(f"job `{job.id}` is {job.state}, by another key: add judges when it is done")
    return await find_own_job(request)


ENDPOINTS = (
    Endpoint(
        "POST /v1/jobs/{job_id}/scores",
        score_job,
        id="score_job",
        tag="Jobs",
        summary="Score a job's answers",
        description="Applies scorers to the answers that are stored; no model is called, and answers that have a score of the "
        "same version keep it, so that a request that was cut off can be repeated. `python` scorers run code of their caller's "
        "choice and are refused. While the job runs, only the answers so far are scored: declare scorers in the job instead. "
        "A `judge` calls its model in a job of its own, one of `judge_jobs`, by your key, once this job has ended.",
        path_parameters=JOB_ID,
        body=ScoresBody,
        answers={
            **list_store_answers(JobScoresJson, "The job's scorers.", invalid=WRONG_FIELDS, missing=MISSING),
            **list_body_error_answers(),
        },
    ),
)
