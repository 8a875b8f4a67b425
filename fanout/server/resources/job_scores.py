"""`/v1/jobs/{job_id}/scores`: scorers applied to stored answers."""

from __future__ import annotations

from aiohttp import web

from fanout.core.threads import run_in_thread
from fanout.evaluate.judging.checks import check_judges
from fanout.evaluate.judging.judging import summarize_scores
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.evaluate.scoring.scoring import score_results
from fanout.rendering.scores import JobScoresJson, render_scores
from fanout.server.lifecycle import DISPATCHER, JOB_MANAGER, JOB_STORE, JUDGING
from fanout.server.openapi.endpoint import Endpoint, list_body_error_answers, list_store_answers
from fanout.server.request_body import read_body
from fanout.server.resources.job_bodies import ScoresBody
from fanout.server.resources.jobs import JOB_ID, MISSING, WRONG_FIELDS
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.server.responses import json_response


@needs_store
async def score_job(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/scores`."""
    body = await read_body(request, ScoresBody)
    job = await find_own_job(request)
    scorers = await run_in_thread("bodies", parse_scorers, body.scorers, allow_functions=False)
    check_judges(request.app[DISPATCHER], scorers)
    store = request.app[JOB_STORE]
    await score_results(store, job.number, scorers)
    if await request.app[JUDGING].advance(job):
        request.app[JOB_MANAGER].supervisor.notify()
    return json_response(render_scores(job.id, *await summarize_scores(store, job)))


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
        "A `judge` calls its model in a job of its own, one of `judge_jobs`, once this job has ended.",
        path_parameters=JOB_ID,
        body=ScoresBody,
        answers={
            **list_store_answers(JobScoresJson, "The job's scorers.", invalid=WRONG_FIELDS, missing=MISSING),
            **list_body_error_answers(),
        },
    ),
)
