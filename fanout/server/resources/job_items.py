"""`/v1/jobs/{job_id}/items`: a job's rows with the results of all models, filtered, searched and sorted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.json_text import JsonObject, encode_json
from fanout.core.threads import run_in_thread
from fanout.jobs import output_files
from fanout.jobs.job import Job
from fanout.jobs.result_records import JobResultJson, build_records
from fanout.server.lifecycle import JOB_STORE
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.listing import parse_whole_number, read_query, write_list
from fanout.server.resources.report_turns import take_turn
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.store.jobs.item_pages import ItemFilter, ItemPages, Show, SortBy
from fanout.store.jobs.records import InputItem, ResultRow, ScorerRow

MAX_PATTERN_CHARS = 1_000
MATCH_TIMEOUT_S = 0.1
"""Longest time that a pattern may take for one text."""
SEARCH_TIMEOUT_S = 5.0


class JobItemJson(TypedDict):
    """A row of the input, and the results of all models."""

    item: Annotated[int, Doc("Number of the row, from 0.")]
    line: Annotated[int, Doc("Line of the input, from 1.")]
    custom_id: Annotated[str | None, Doc("Your name for the row.")]
    input: Annotated[Any, Doc("The row as it was read.")]
    results: Annotated[Sequence[JobResultJson], Doc("Ended calls, by model and repeat.")]


class JobItemsJson(TypedDict):
    object: Literal["list"]
    total: Annotated[int, Doc("Rows that the filters leave.")]
    offset: Annotated[int, Doc("Rows before the first of this page.")]
    scorers: Annotated[Sequence[str], Doc("Names of the job's scorers, for `scorer`.")]
    data: Annotated[Sequence[JobItemJson], Doc("The rows of the page.")]


class ItemsQuery(BaseModel):
    """Filters, order and page of a job's rows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    show: Show = "all"
    """`errors`: rows with a failure; `different`: whose answers differ; `regressions`: on which a model scores worse than the
    baseline; `disagreement`: on which the models' scores differ."""
    baseline: str | None = Field(None, max_length=256)
    """Label of the model with which the others are compared; absent: the first."""
    scorer: str | None = Field(None, max_length=256)
    """Name of the scorer by which they are; absent: the first by name."""
    search: str | None = Field(None, min_length=1, max_length=1_000)
    """Text that the row or an answer holds, whatever its case."""
    regex: str | None = Field(None, min_length=1, max_length=MAX_PATTERN_CHARS)
    """Pattern that is found in the row's JSON or in an answer."""
    sort: SortBy = "input"
    """`score_difference`: greatest difference of the models' scores; `length`: most tokens of an answer; `latency`: longest
    time; `cost`: of all answers to the row."""
    order: Literal["asc", "desc"] | None = None
    """Absent: `asc` for the input's own order, otherwise `desc`."""
    offset: Annotated[int, BeforeValidator(parse_whole_number)] = Field(0, ge=0, le=100_000_000)
    """Rows to skip."""
    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(50, ge=1, le=200)
    """Most rows of a page."""


@needs_store
async def list_items(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/items`."""
    job, store = await find_own_job(request), request.app[JOB_STORE]
    query = read_query(request, ItemsQuery)
    scorers = await store.scores.list_scorers(job.number)
    # Before the query, which cannot match patterns: SQLite has none, and PostgreSQL's are others and unbounded.
    only = None
    if query.regex:
        # Texts of the whole job are searched, for seconds.
        async with take_turn(request):
            only = await _match(store.item_pages, job.number, query.regex)
    filter_ = _to_filter(query, job, scorers, only)
    numbers, total = await store.item_pages.list_numbers(job.number, filter_, query.offset, query.limit)
    items, results = await store.item_pages.read(job.number, numbers) if numbers else ((), ())
    head: JsonObject = {"object": "list", "total": total, "offset": query.offset, "scorers": [row.label for row in scorers]}
    body = await run_in_thread("answers", lambda: write_list(_encode(items, results), head))
    return web.Response(body=body, content_type="application/json")


def _to_filter(query: ItemsQuery, job: Job, scorers: Sequence[ScorerRow], only: Sequence[int] | None) -> ItemFilter:
    labels = job.labels
    faults = []
    if query.baseline is not None and query.baseline not in labels:
        faults.append(Fault("baseline", f"no model is called {query.baseline!a:.80}: {', '.join(labels)}"))
    chosen = [row for row in scorers if query.scorer in (None, row.label)]
    if query.scorer is not None and not chosen:
        known = ", ".join(row.label for row in scorers) or "the job has none"
        faults.append(Fault("scorer", f"no scorer is called {query.scorer!a:.80}: {known}"))
    if faults:
        raise RequestError(faults)
    scorer = chosen[0] if chosen else None
    is_descending = query.order == "desc" if query.order else query.sort != "input"
    return ItemFilter(
        show=query.show,
        sort=query.sort,
        is_descending=is_descending,
        scorer=scorer.scorer if scorer else None,
        is_higher_better=scorer.is_higher_better if scorer else True,
        baseline=labels.index(query.baseline) if query.baseline else 0,
        search=query.search,
        only=only,
    )


async def _match(pages: ItemPages, number: int, pattern: str) -> Sequence[int]:
    """Return the items of which a text matches a pattern, within a bounded time."""
    try:
        from fanout.evaluate.limits import compile_pattern, search
    except ImportError as error:
        sentence = f"needs {explain_missing_extra(error.name or 'regex', 'evaluate')}"
        raise RequestError([Fault("regex", sentence)]) from None
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        raise RequestError([Fault("regex", f"`{pattern[:80]}` {error}")]) from None

    def search_all(rows: Sequence[tuple[int, str]]) -> list[int]:
        # Each text has a bound of its own, because a thread cannot be interrupted from outside.
        return [item for item, text in rows if search(compiled, text, timeout_s=MATCH_TIMEOUT_S)]

    found: dict[int, None] = {}
    deadline = time.monotonic() + SEARCH_TIMEOUT_S
    async for rows in pages.iterate_texts(number):
        try:
            found |= dict.fromkeys(await run_in_thread("answers", search_all, rows))
        except TimeoutError:
            deadline = 0.0  # one text has taken too long
        # Checked between pages: a job has no bound of texts, and the request must have one.
        if time.monotonic() > deadline:
            raise RequestError([Fault("regex", f"takes longer than {SEARCH_TIMEOUT_S:.0f} s for this job")])
    return list(found)


def _encode(items: Sequence[InputItem], results: Sequence[ResultRow]) -> list[bytes]:
    """Return the JSON of each item, into which its results are put as they are written everywhere."""
    encoder = output_files.make_encoder("jsonl")
    by_item: dict[int, list[ResultRow]] = {}
    for row in results:
        by_item.setdefault(row.item, []).append(row)
    lines = []
    for item in items:
        found: Mapping[str, Any] = {
            "item": item.item,
            "line": item.line,
            "custom_id": item.custom_id,
            "input": from_json(item.body),
        }
        rows = encoder.encode(list(build_records(by_item.get(item.item, ())))).splitlines()
        # Spliced as bytes: parsing the results again only to write them once more would double the work.
        lines.append(encode_json(found)[:-1] + b',"results":[' + b",".join(rows) + b"]}")
    return lines


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/items",
        list_items,
        id="job_items",
        tag="Jobs",
        summary="A job's rows with the results of all models",
        description="A table's pages: filtered, searched and sorted here, by their offsets. Rows without a value to sort by "
        "come last.",
        path_parameters=JOB_ID,
        query=ItemsQuery,
        examples={"answers that differ, the slowest first": {"show": "different", "sort": "latency", "limit": 10}},
        answers=list_store_answers(JobItemsJson, "A page of them.", invalid=INVALID_PARAMETERS, missing=MISSING),
    ),
)
