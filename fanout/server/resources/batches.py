"""`/v1/batches`: OpenAI's batches, each a job of the same id.

Source: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import from_json

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.units import to_unix_seconds
from fanout.jobs.job import ENDED_STATES, Job, Progress
from fanout.jobs.manager import JobManager
from fanout.jobs.openai_batches import OpenAIBatchWorker, parse_window
from fanout.requests.bodies import Metadata, ObjectBody
from fanout.server.lifecycle import BATCH_STORE, FILE_STORE, JOB_MANAGER
from fanout.server.middleware import auth
from fanout.server.request_body import read_body
from fanout.server.resources.listing import ListQuery, choose_account, page_response, read_query
from fanout.server.resources.storage import needs_store
from fanout.server.resources.upload import MAX_LIFETIME_S, MIN_LIFETIME_S
from fanout.server.responses import json_response
from fanout.store.batches import BatchRow, BatchStore
from fanout.store.file_reader import find_file

BATCH_WORKER = web.AppKey("batch_worker", OpenAIBatchWorker)


def _check_window(text: str) -> str:
    parse_window(text)
    return text


class ExpiresAfter(BaseModel):
    """Lifetime of the result files."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    anchor: Literal["created_at"]
    """Start of the seconds: the file's creation."""
    seconds: int = Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)
    """An hour to thirty days."""


class BatchBody(ObjectBody):
    """A request for a batch."""

    input_file_id: str = Field(min_length=1, max_length=256)
    """Id of an uploaded JSONL file with a request on each line."""
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    """Endpoint of all its requests."""
    completion_window: Annotated[
        str, AfterValidator(_check_window), Field(json_schema_extra={"pattern": "^[0-9]{1,9}[smhd]$", "examples": ["24h"]})
    ]
    """Most time that it may take: `24h`, or another number of `s`, `m`, `h` or `d`. Requests unfinished by then expire."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours."""
    output_expires_after: ExpiresAfter | None = None
    """Lifetime of the result files; absent: they never expire."""


@needs_store
async def create_batch(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/batches`."""
    body = await read_body(request, BatchBody)
    auth.refuse_caller_credentials(request)
    await find_file(request.app[FILE_STORE], body.input_file_id, "input_file_id")
    batch_id, account_id = f"batch_{uuid.uuid4().hex}", auth.account_id(request) or ""
    await request.app[BATCH_STORE].create(BatchRow(batch_id, time.time(), account_id, body.model_dump_json(exclude_none=True)))
    request.app[BATCH_WORKER].notify()
    return await _respond_batch(request, batch_id)


@needs_store
async def list_batches(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/batches`."""
    query, batches = read_query(request, ListQuery), request.app[BATCH_STORE]
    found = await batches.list_batches(
        limit=query.limit + 1,
        after=await _find_batch(batches, query.after, "after") if query.after else None,
        account_id=choose_account(request, query),
    )
    shown = [render_batch(row, await _read_progress(request.app[JOB_MANAGER], row.id)) for row in found[: query.limit]]
    return page_response(shown, has_more=len(found) > query.limit)


@needs_store
async def get_batch(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/batches/{batch_id}`."""
    return await _respond_batch(request, request.match_info["batch_id"])


@needs_store
async def cancel_batch(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/batches/{batch_id}/cancel`."""
    row = await _find_batch(request.app[BATCH_STORE], request.match_info["batch_id"])
    manager = request.app[JOB_MANAGER]
    progress = await _read_progress(manager, row.id)
    if row.settled is not None or (progress and progress.job.state in ENDED_STATES):
        status = render_batch(row, progress)["status"]
        raise RequestError([Fault("batch_id", f"batch `{row.id}` is {status}: it can no longer be cancelled", "wrong_state")])
    if row.cancelling is None:
        await request.app[BATCH_STORE].update(row.id, {"cancelling": time.time()})
    if progress and progress.job.state != "loading":  # a job that is still being created is cancelled by the worker
        await manager.cancel(row.id)
    request.app[BATCH_WORKER].notify()
    return await _respond_batch(request, row.id)


async def _respond_batch(request: web.Request, batch_id: str) -> web.Response:
    row = await _find_batch(request.app[BATCH_STORE], batch_id)
    return json_response(render_batch(row, await _read_progress(request.app[JOB_MANAGER], batch_id)))


async def _find_batch(batches: BatchStore, batch_id: str, param: str = "batch_id") -> BatchRow:
    """Look a batch up.

    Args:
        param: the field that named it.

    Raises:
        RequestError: there is no such batch.
    """
    row = await batches.find(batch_id)
    if row is None:
        raise RequestError([Fault(param, f"no batch `{batch_id[:100]}`", "batch_not_found")])
    return row


async def _read_progress(manager: JobManager, batch_id: str) -> Progress | None:
    """Return the progress of a batch's job; `None` while it has none."""
    with suppress(RequestError):
        return await manager.read_progress(batch_id)
    return None


# Its form


def render_batch(row: BatchRow, progress: Progress | None) -> dict[str, Any]:
    """A batch as it stands in answers."""
    asked: Mapping[str, Any] = from_json(row.request)
    job = progress.job if progress and progress.job.state != "loading" else None
    status, errors = _status(row, job)
    ended = row.settled if job is None else job.ended
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": asked["endpoint"],
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": asked["input_file_id"],
        "completion_window": asked["completion_window"],
        "status": status,
        "output_file_id": row.output_file,
        "error_file_id": row.error_file,
        "created_at": int(row.created),
        "in_progress_at": to_unix_seconds(row.validated),
        "expires_at": int(row.created) + parse_window(asked["completion_window"]),
        "finalizing_at": to_unix_seconds(job.ended if job and job.state == "done" else None),
        "completed_at": to_unix_seconds(row.settled if status == "completed" else None),
        "failed_at": to_unix_seconds(row.settled if status == "failed" else None),
        "expired_at": to_unix_seconds(ended if status == "expired" else None),
        "cancelling_at": to_unix_seconds(row.cancelling),
        "cancelled_at": to_unix_seconds(ended if status == "cancelled" else None),
        "request_counts": {
            "total": job.units if job else 0,
            "completed": progress.answered if progress and job else 0,
            "failed": progress.ended - progress.answered if progress and job else 0,
        },
        "metadata": asked.get("metadata"),
    }


def _status(row: BatchRow, job: Job | None) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """OpenAI's word for where a batch is, and what is wrong with it."""
    if row.errors is not None:
        return "failed", from_json(row.errors)
    if row.settled is None:
        ended = job is not None and job.state in ENDED_STATES
        cancelling = row.cancelling is not None and not (ended and job and job.state != "cancelled")
        return "cancelling" if cancelling else "validating" if job is None else "finalizing" if ended else "in_progress", ()
    if job is None or job.state == "cancelled":
        return "cancelled", ()
    if job.state == "stopped":
        return "failed", [{"code": "batch_stopped", "line": None, "message": job.reason or "it has stopped", "param": None}]
    return {"done": "completed", "expired": "expired"}.get(job.state, "in_progress"), ()
