"""`/v1/jobs/{job_id}/results`: pages and exports of a job's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fanout.core.schema import FailureKind
from fanout.core.threads import run_in_thread
from fanout.jobs import output_files
from fanout.jobs.export import encode_results
from fanout.jobs.result_records import build_records
from fanout.rendering.job import JobResultsJson
from fanout.server.lifecycle import JOB_STORE
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, StatusAnswer, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.listing import parse_whole_number, read_query, write_list
from fanout.server.resources.storage import find_own_job, needs_store, respond_download
from fanout.store.jobs.records import ResultFilter, ResultRow

MEDIA_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
CURSOR_PATTERN = "^[0-9]{1,18}[.][0-9]{1,18}[.][0-9]{1,18}$"


def _parse_flag(text: object) -> object:
    # Anything else is left to pydantic, whose error names the field.
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


def _parse_cursor(text: object) -> tuple[int, ...]:
    parts = text.split(".") if isinstance(text, str) else ()
    # Digits below 2⁶³: a larger number would fail in the database, as a 500.
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise ValueError("is not allowed: the `next` of the page before")
    return tuple(int(part) for part in parts)


class ExportQuery(BaseModel):
    """Filters of results."""

    model_config = ConfigDict(extra="forbid", strict=True)

    failed: Annotated[bool | None, BeforeValidator(_parse_flag)] = None
    """`true`: only failures; `false`: only answers."""
    model: str | None = Field(None, max_length=256)
    """Only this entry's, by its label."""
    kind: FailureKind | None = None
    """Only failures of this kind."""
    different: Annotated[bool | None, BeforeValidator(_parse_flag)] = None
    """`true`: only results of rows whose answers differ."""

    def to_filter(self) -> ResultFilter:
        """Return the filters as the store takes them."""
        return ResultFilter(self.failed, self.model, self.kind, different=bool(self.different))


class FileQuery(ExportQuery):
    """Filters and form of results in a file."""

    quote_formulas: Annotated[bool | None, BeforeValidator(_parse_flag)] = None
    """`true`, for CSV: texts that begin with `=`, `+`, `-`, `@` or a tab, which spreadsheets compute as formulas, whoever wrote
    them, are written with an apostrophe before them."""


class ResultsQuery(ExportQuery):
    """Filters and page of results."""

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(100, ge=1, le=1_000)
    """Most results of a page; it has fewer where they are long."""
    after: Annotated[
        tuple[int, int, int] | None,
        BeforeValidator(_parse_cursor, json_schema_input_type=Annotated[str, Field(pattern=CURSOR_PATTERN)]),
    ] = None
    """The `next` of the page before."""


@needs_store
async def list_results(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/results`."""
    job = await find_own_job(request)
    query = read_query(request, ResultsQuery)
    shown, has_more = await request.app[JOB_STORE].results.read_page(job.number, query.after, query.limit, query.to_filter())
    # A place and not an offset: results that come meanwhile neither shift nor repeat those of the next page.
    cursor = ".".join(str(number) for number in shown[-1].place) if has_more else None
    # In a thread: a thousand results may hold megabytes of text.
    body = await run_in_thread("exports", _write_page, shown, {"has_more": has_more, "next": cursor})
    return web.Response(body=body, content_type="application/json")


def _write_page(shown: Sequence[ResultRow], tail: Mapping[str, object]) -> bytearray:
    lines = output_files.make_encoder("jsonl").encode(list(build_records(shown))).splitlines()
    return write_list(lines, {"object": "list"}, tail)


@needs_store
async def export_results(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/results.{format}`: all results, in memory that does not grow with them."""
    job = await find_own_job(request)
    query, format_ = read_query(request, FileQuery), request.match_info["format"]
    # Before the first byte: a missing pyarrow must still be able to become a 400.
    # In a thread: that of Parquet is loaded for it.
    encoder = await run_in_thread("exports", output_files.make_encoder, format_, quote_formulas=bool(query.quote_formulas))
    pieces = encode_results(request.app[JOB_STORE], job.number, encoder, query.to_filter())
    return await respond_download(request, pieces, filename=f"{job.id}.{format_}", content_type=MEDIA_TYPES[format_])


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/results",
        list_results,
        id="job_results",
        tag="Jobs",
        summary="A job's results, by pages",
        description="In the order of the input, as far as they have come; `next` is the `after` of the next page.",
        path_parameters=JOB_ID,
        query=ResultsQuery,
        answers=list_store_answers(JobResultsJson, "A page of them.", invalid=INVALID_PARAMETERS, missing=MISSING),
    ),
    Endpoint(
        "GET /v1/jobs/{job_id}/results.{format:jsonl|csv|parquet}",
        export_results,
        id="job_export",
        tag="Jobs",
        summary="A job's results, as a file",
        description="All at once, streamed: JSONL, CSV or Parquet, with the same fields as in the pages.",
        path_parameters={**JOB_ID, "format": ("`jsonl`, `csv` or `parquet`.", "csv")},
        query=FileQuery,
        answers={
            **list_store_answers(
                JobResultsJson,
                "",
                invalid="Wrong parameters, all of them named in `details`; or Parquet, if pyarrow is not installed.",
                missing="There is no such job, or no such format.",
            ),
            200: StatusAnswer(
                "The file.",
                {
                    "application/jsonl": {"type": "string"},
                    "text/csv": {"type": "string"},
                    "application/vnd.apache.parquet": {"type": "string", "format": "binary"},
                },
            ),
        },
    ),
)
