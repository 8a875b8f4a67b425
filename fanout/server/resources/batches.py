"""`/v1/batches`: OpenAI's batches. Each is a job of the same id, which `jobs/openai_batches.py` makes and brings to its end.

Source: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Literal

from aiohttp import web
from pydantic import AfterValidator, Field

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import encode_json
from fanout.jobs.openai_batches import parse_window
from fanout.rendering.batch import BatchJson, BatchListJson, render_batch
from fanout.requests.bodies import Metadata, ObjectBody
from fanout.server.accounts.callers import find_caller
from fanout.server.accounts.quotas import find_room_for_job, take_turn
from fanout.server.lifecycle import BATCH_STORE, BATCH_WORKER, JOB_MANAGER
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, list_body_error_answers, list_store_answers
from fanout.server.request_body import read_body
from fanout.server.resources.listing import ListQuery, page_response, read_query
from fanout.server.resources.storage import find_own_file, needs_store
from fanout.server.resources.upload import MAX_LIFETIME_S, MIN_LIFETIME_S
from fanout.server.responses import json_response
from fanout.store.batches import BatchRow
from fanout.store.jobs.records import ENDED_STATES


def _check_window(text: str) -> str:
    parse_window(text)
    return text


class ExpiresAfter(ObjectBody):
    """Lifetime of the result files."""

    anchor: Literal["created_at"]
    """Start of `seconds`: the file's creation."""
    seconds: int = Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)
    """An hour to thirty days."""


class BatchBody(ObjectBody):
    """A request for a batch."""

    input_file_id: str = Field(min_length=1, max_length=256)
    """Id of an uploaded JSONL file with a request on each line."""
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    """Endpoint of its requests."""
    completion_window: Annotated[
        str, AfterValidator(_check_window), Field(json_schema_extra={"pattern": "^[0-9]{1,9}[smhd]$", "examples": ["24h"]})
    ]
    """Time that it may take: `24h`, or another number of `s`, `m`, `h` or `d`. Requests that are unfinished then expire."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours."""
    output_expires_after: ExpiresAfter | None = None
    """Lifetime of the result files; absent: they never expire."""


@needs_store
async def create_batch(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/batches`."""
    body = await read_body(request, BatchBody)
    auth.refuse_caller_credentials(request)
    await find_own_file(request, body.input_file_id, "input_file_id")  # a wrong id is refused at once
    batch_id, account_id = f"batch_{uuid.uuid4().hex}", auth.choose_account(request) or ""
    async with take_turn(request):
        left = await find_room_for_job(request, "input_file_id")
        # Beside what was sent, the caller's key and the rows that it allows: the input is read later.
        kept = {**body.model_dump(exclude_none=True), "key_id": find_caller(request).key_id, "rows_left": left}
        await request.app[BATCH_STORE].create(BatchRow(batch_id, time.time(), account_id, encode_json(kept).decode()))
    # Validated in the background, as at OpenAI, because a large file takes longer than clients wait.
    request.app[BATCH_WORKER].notify()
    return await _respond_batch(request, batch_id)


@needs_store
async def list_batches(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/batches`."""
    query, batches = read_query(request, ListQuery), request.app[BATCH_STORE]
    found = await batches.list_batches(
        limit=query.limit + 1,  # one more than shown tells if there is another page
        after=await find_own_batch(request, query.after, "after") if query.after else None,
        account_id=auth.choose_account(request, query.account_id),
    )
    shown = found[: query.limit]
    ids = [batch.id for batch in shown]
    # A batch has no job before its input is validated.
    progress = await request.app[JOB_MANAGER].find_progress(ids)
    return await page_response(
        shown, lambda batch: render_batch(batch, progress.get(batch.id)), ids, has_more=len(found) > query.limit
    )


@needs_store
async def get_batch(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/batches/{batch_id}`."""
    return await _respond_batch(request, (await find_own_batch(request)).id)


@needs_store
async def cancel_batch(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/batches/{batch_id}/cancel`."""
    batch = await find_own_batch(request)
    manager = request.app[JOB_MANAGER]
    progress = (await manager.find_progress([batch.id])).get(batch.id)
    if batch.settled is not None or (progress and progress.job.state in ENDED_STATES):
        status = render_batch(batch, progress)["status"]
        raise RequestError([Fault("batch_id", f"batch `{batch.id}` is {status}: it can no longer be cancelled", "wrong_state")])
    # Written before the job is cancelled: if this process dies in between, the next process's worker cancels the job.
    if batch.cancelling is None:
        await request.app[BATCH_STORE].update(batch.id, {"cancelling": time.time()})
    if progress and progress.job.state != "loading":  # a job that is still being created is cancelled by the worker
        await manager.cancel(batch.id)
    request.app[BATCH_WORKER].notify()
    return await _respond_batch(request, batch.id)


async def find_own_batch(request: web.Request, batch_id: str | None = None, param: str = "batch_id") -> BatchRow:
    """Return a batch, by default the one in the path; raise `RequestError` if the caller's account has no such batch."""
    id_ = request.match_info["batch_id"] if batch_id is None else batch_id
    row = await request.app[BATCH_STORE].find(id_)
    if row is None or auth.find_account(request) not in (None, row.account_id):
        raise RequestError([Fault(param, f"no batch `{id_[:100]}`", "batch_not_found")])
    return row


async def _respond_batch(request: web.Request, batch_id: str) -> web.Response:
    batch = await find_own_batch(request, batch_id)
    progress = await request.app[JOB_MANAGER].find_progress([batch_id])
    return json_response(render_batch(batch, progress.get(batch_id)))


BATCH_ID = {"batch_id": ("Id of the batch.", "batch_0123456789abcdef0123456789abcdef")}
MISSING = "There is no such batch."
ENDPOINTS = (
    Endpoint(
        "POST /v1/batches",
        create_batch,
        id="create_batch",
        tag="Files and batches",
        summary="Run a file of requests",
        description="OpenAI's batches: the examples of their client run unmodified. Each line of the file is "
        '`{"custom_id": …, "method": "POST", "url": <endpoint>, "body": …}`; `model` in a body may be a list, which gives one '
        "line of output for every entry, marked by its `entry`. The whole file is checked first: if a line is bad, the "
        "batch is `failed`, `errors` names every such line, and nothing was sent.",
        body=BatchBody,
        headers=("x-selected-account-id",),
        answers={
            **list_store_answers(
                BatchJson,
                "The batch, which is `validating`.",
                invalid="Wrong fields, all of them named in `details`.",
                missing="There is no such file.",
            ),
            **list_body_error_answers(),
        },
    ),
    Endpoint(
        "GET /v1/batches",
        list_batches,
        id="batches",
        tag="Files and batches",
        summary="All batches",
        description="The newest first.",
        query=ListQuery,
        headers=("x-selected-account-id",),
        answers=list_store_answers(
            BatchListJson, "A page of them.", invalid=INVALID_PARAMETERS, missing="There is no such batch, named by `after`."
        ),
    ),
    Endpoint(
        "GET /v1/batches/{batch_id}",
        get_batch,
        id="batch",
        tag="Files and batches",
        summary="One batch",
        path_parameters=BATCH_ID,
        answers=list_store_answers(BatchJson, "The batch.", missing=MISSING),
    ),
    Endpoint(
        "POST /v1/batches/{batch_id}/cancel",
        cancel_batch,
        id="cancel_batch",
        tag="Files and batches",
        summary="Cancel a batch",
        description="Nothing more is sent; calls in flight are waited for. The output file holds all answers.",
        path_parameters=BATCH_ID,
        answers=list_store_answers(BatchJson, "The batch.", missing=MISSING, conflict="It has ended."),
    ),
)
