"""`/v1/jobs/{job_id}/gate` and `/plan`: what a job's scores decide, and what the next job needs."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from fanout.evaluate.decisions.job_decisions import gate_job, plan_job
from fanout.evaluate.decisions.options import GateOptions, PlanOptions
from fanout.jobs.job import Job
from fanout.rendering.decisions import GateJson, PlanJson, render_gate, render_plan
from fanout.server.lifecycle import JOB_STORE
from fanout.server.openapi.endpoint import Endpoint, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.listing import read_query
from fanout.server.resources.report_turns import take_turn
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.server.responses import json_response

Name = Annotated[str, Field(min_length=1, max_length=256)]


class GateQuery(BaseModel):
    """A candidate, what it is compared with, and how much worse it may be."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Name
    """The candidate's label."""
    baseline: Name
    """The label of the model that it is compared with."""
    margin: Annotated[float, Field(ge=0)]
    """How much worse it may be, in the unit of the score."""
    metric: Name | None = None
    """Name of the scorer; absent: the job's only one."""
    cluster: Name | None = None
    """The rows' column that groups items which hang together."""
    baseline_job: Name | None = None
    """Id of the earlier job that has the baseline; absent: the same job."""


class PlanQuery(BaseModel):
    """The difference to be seen, and how surely."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    difference: Annotated[float, Field(gt=0)]
    """The smallest difference worth seeing, in the unit of the score."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance to see a difference where there is none."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Chance to see it where it is."""
    repeats: Annotated[int, Field(ge=1, le=128)] = 1
    """Samples of each item and model."""
    metric: Name | None = None
    """Name of the scorer; absent: the job's only one."""
    model: Name | None = None
    """Label of a model, to be compared with `baseline` alone; absent: every two of the job's models."""
    baseline: Name | None = None
    """Label of the model that it is compared with."""
    baseline_job: Name | None = None
    """Id of the earlier job that has the baseline; absent: the same job."""


@needs_store
async def get_gate(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/gate`."""
    job = await find_own_job(request)
    query = read_query(request, GateQuery)
    earlier = await _find_earlier(request, query.baseline_job)
    options = GateOptions(query.model, query.baseline, query.margin, query.metric, query.baseline_job)
    async with take_turn(request):
        gate = await gate_job(request.app[JOB_STORE], job, options, query.cluster, earlier)
    return json_response(render_gate(job.id, gate))


@needs_store
async def get_plan(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/plan`."""
    job = await find_own_job(request)
    query = read_query(request, PlanQuery)
    earlier = await _find_earlier(request, query.baseline_job)
    chosen = query.model, query.baseline, query.baseline_job
    options = PlanOptions(query.difference, query.alpha, query.power, query.repeats, query.metric, *chosen)
    async with take_turn(request):
        plan = await plan_job(request.app[JOB_STORE], job, options, earlier)
    return json_response(render_plan(plan, job.id))


async def _find_earlier(request: web.Request, job_id: str | None) -> Job | None:
    """Return the caller's job that has the baseline; `None`: it is the same one."""
    return None if job_id is None else await find_own_job(request, job_id)


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/gate",
        get_gate,
        id="job_gate",
        tag="Jobs",
        summary="Whether a candidate is good enough",
        description="The paired interval of candidate − baseline decides: `pass` if its lower bound is above −margin, `fail` "
        "if its upper bound is below −margin, else `inconclusive`. A job that has not ended is inconclusive. With "
        "`baseline_job`, rows are paired by their `custom_id`, and rows without one by their place.",
        path_parameters=JOB_ID,
        query=GateQuery,
        answers=list_store_answers(
            GateJson,
            "The verdict.",
            invalid="Wrong parameters, or the job has no such model, metric or column.",
            missing=MISSING,
        ),
    ),
    Endpoint(
        "GET /v1/jobs/{job_id}/plan",
        get_plan,
        id="job_plan",
        tag="Jobs",
        summary="How many items the next job needs",
        description="By the variances of this job's scores, as of a pilot.",
        path_parameters=JOB_ID,
        query=PlanQuery,
        answers=list_store_answers(
            PlanJson, "The plan.", invalid="Wrong parameters, or the job has no such metric, or too few items.", missing=MISSING
        ),
    ),
)
