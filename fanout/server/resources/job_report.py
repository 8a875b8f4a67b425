"""`/v1/jobs/{job_id}/report`: which model of a job is better, and how sure that is."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from fanout.core.threads import run_in_thread
from fanout.evaluate.report.job_report import report_job
from fanout.rendering.report import ReportJson, render_report
from fanout.server.lifecycle import JOB_STORE
from fanout.server.openapi.endpoint import Endpoint, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.listing import read_query
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.server.responses import json_response


class ReportQuery(BaseModel):
    """Options of a report."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cluster: str | None = Field(None, min_length=1, max_length=256)
    """The rows' column that groups items which hang together, such as those of one document."""


@needs_store
async def get_report(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/report`."""
    job = await find_own_job(request)
    query = read_query(request, ReportQuery)
    report = await report_job(request.app[JOB_STORE], job, query.cluster)
    return json_response(await run_in_thread("reports", render_report, report))


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/report",
        get_report,
        id="job_report",
        tag="Jobs",
        summary="Which model of a job is better, and how sure that is",
        description="For each scorer every model's mean with its interval and rank, and every pair's difference on the same "
        "items; for each model its failures, cost and times; the methods by name. A figure that the job's items cannot support "
        "is null, with a note. A job that has not ended has a report of what has come so far.",
        path_parameters=JOB_ID,
        query=ReportQuery,
        answers=list_store_answers(
            ReportJson,
            "The report.",
            invalid="No row has the column named by `cluster`, or the server lacks the extra `evaluate`.",
            missing=MISSING,
        ),
    ),
)
