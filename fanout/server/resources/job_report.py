"""`/v1/jobs/{job_id}/report`: which model of a job is better, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from fanout.core.threads import run_in_thread
from fanout.evaluate.report.job_report import report_job
from fanout.jobs.export import read_page
from fanout.jobs.job import Job
from fanout.jobs.output_formats import fill_columns
from fanout.jobs.result_records import build_records
from fanout.rendering.report import ReportJson, render_report
from fanout.server.lifecycle import JOB_STORE
from fanout.server.openapi.endpoint import Endpoint, StatusAnswer, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.listing import read_query
from fanout.server.resources.report_turns import take_turn
from fanout.server.resources.storage import find_own_job, needs_store, respond_pieces
from fanout.server.responses import json_response
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Place, ResultFilter, ResultRow

# Imported only where a file is made.
if TYPE_CHECKING:
    from fanout.rendering.report_html.document import ReportDocument


Format = Literal["json", "html", "markdown", "csv"]
MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "html": "text/html",
    "markdown": "text/markdown",
    "csv": "text/csv",
}
SANDBOX = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
"""Beside the document's own policy: models wrote its texts, so even a fault in it must not act in this server's name."""
QUALITY = re.compile(r"q=(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")


class ReportQuery(BaseModel):
    """Options of a report."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cluster: str | None = Field(None, min_length=1, max_length=256)
    """The rows' column that groups items which hang together, such as those of one document."""
    format: Format | None = None
    """`html` is one file with figures and all answers; absent: by `Accept`, else `json`."""


@needs_store
async def get_report(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/report`."""
    job = await find_own_job(request)
    query = read_query(request, ReportQuery)
    store = request.app[JOB_STORE]
    async with take_turn(request):
        rendered = await run_in_thread("reports", render_report, await report_job(store, job, query.cluster))
    format_ = query.format or choose_format(request.headers.getall("Accept", ()))
    if format_ == "json":
        response: web.StreamResponse = json_response(rendered)
    elif format_ == "html":
        return await _respond_html(request, job, rendered)
    else:
        text = await run_in_thread("reports", _write_text, rendered, format_)
        response = web.Response(text=text, content_type=MEDIA_TYPES[format_])
    response.headers["Vary"] = "Accept"
    return response


def choose_format(accepted: Sequence[str]) -> Format:
    """Return the form that a client likes best by its `Accept` headers; JSON where it names none that there is."""
    formats = {media: format_ for format_, media in MEDIA_TYPES.items()}
    found: list[tuple[float, Format]] = []
    for part in ",".join(accepted).lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [piece[2:] for piece in parameters if QUALITY.fullmatch(piece)]
        if media in formats:
            found.append((float(weights[0]) if weights else 1.0, formats[media]))
    # The first of equals, as it stands in the header.
    best = max(found, key=lambda one: one[0], default=(0.0, "json"))
    return best[1] if best[0] > 0 else "json"


def _write_text(report: ReportJson, format_: Literal["markdown", "csv"]) -> str:
    from fanout.rendering import report_tables

    return report_tables.render_csv(report) if format_ == "csv" else report_tables.render_markdown(report)


async def _respond_html(request: web.Request, job: Job, report: ReportJson) -> web.StreamResponse:
    from fanout.rendering.report_html.document import ReportDocument, make_policy

    document = ReportDocument(report, by_label=job.spec.kind != "rows")
    headers = {"Content-Security-Policy": f"{make_policy()}; {SANDBOX}", "Vary": "Accept"}
    return await respond_pieces(
        request, _build_pieces(request.app[JOB_STORE], job, document), content_type="text/html; charset=utf-8", headers=headers
    )


async def _build_pieces(store: JobStore, job: Job, document: ReportDocument) -> AsyncGenerator[bytes]:
    """Yield the document, in memory that does not grow with the job's answers."""
    yield await run_in_thread("reports", document.begin)
    after: Place | None = None
    while not document.is_full and (page := await read_page(store, job.number, after, ResultFilter())):
        after = page[-1].place
        yield await run_in_thread("reports", _add_page, document, page)
    yield await run_in_thread("reports", lambda: b"".join(document.close()))


def _add_page(document: ReportDocument, page: Sequence[ResultRow]) -> bytes:
    return b"".join(document.add(map(fill_columns, build_records(page))))


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/report",
        get_report,
        id="job_report",
        tag="Jobs",
        summary="Which model of a job is better, and how sure that is",
        description="As JSON, as one HTML file, as Markdown or as CSV. For each scorer every model's mean with its interval "
        "and rank, and every pair's difference on the same items; for each model its failures, cost and times; the methods by "
        "name. A figure that the job's items cannot support is null, with a note. A job that has not ended has a "
        "report of what has come so far.",
        path_parameters=JOB_ID,
        query=ReportQuery,
        answers={
            **list_store_answers(
                ReportJson,
                "",
                invalid="No row has the column named by `cluster`, or the server lacks the extra `evaluate`.",
                missing=MISSING,
            ),
            200: StatusAnswer(
                "The report.",
                {"application/json": ReportJson, **{media: {"type": "string"} for media in list(MEDIA_TYPES.values())[1:]}},
            ),
        },
    ),
)
