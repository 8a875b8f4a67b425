"""OpenAI's files and batches.

Source: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.units import to_unix_seconds
from fanout.jobs.job import Job, Progress
from fanout.jobs.openai_batches import BatchErrorJson, parse_window
from fanout.rendering.shared import PageJson
from fanout.store.batches import BatchRow
from fanout.store.files import FileRow
from fanout.store.jobs.records import ENDED_STATES

BatchStatus = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]


class BatchErrorsJson(TypedDict):
    object: Literal["list"]
    data: Annotated[Sequence[BatchErrorJson], Doc("Everything that is wrong with the input.")]


class RequestCountsJson(TypedDict):
    """Calls: a line whose `model` is a list has one for each entry."""

    total: Annotated[int, Doc("All calls.")]
    completed: Annotated[int, Doc("Calls that were answered.")]
    failed: Annotated[int, Doc("Calls that have failed.")]


class BatchJson(TypedDict):
    """OpenAI's batch. Times are Unix seconds; null: that has not happened."""

    id: Annotated[str, Doc("Id of the batch.")]
    object: Literal["batch"]
    endpoint: Annotated[str, Doc("Endpoint of its requests.")]
    errors: Annotated[BatchErrorsJson | None, Doc("What is wrong with the input; then nothing was sent.")]
    input_file_id: Annotated[str, Doc("File of its requests.")]
    completion_window: Annotated[str, Doc("Time that it may take.")]
    status: Annotated[BatchStatus, Doc("State of the batch.")]
    output_file_id: Annotated[str | None, Doc("File of the answers, once the batch has ended; null: there are none.")]
    error_file_id: Annotated[
        str | None, Doc("File of the requests that failed or were not sent, once the batch has ended; null: there are none.")
    ]
    created_at: Annotated[int, Doc("When it was created.")]
    in_progress_at: Annotated[int | None, Doc("When its input had been validated.")]
    expires_at: Annotated[int, Doc("When unfinished requests expire.")]
    finalizing_at: Annotated[int | None, Doc("When its last request had ended.")]
    completed_at: Annotated[int | None, Doc("When its files were ready.")]
    failed_at: Annotated[int | None, Doc("When it failed.")]
    expired_at: Annotated[int | None, Doc("When it expired.")]
    cancelling_at: Annotated[int | None, Doc("When its cancellation began.")]
    cancelled_at: Annotated[int | None, Doc("When it had stopped.")]
    request_counts: Annotated[RequestCountsJson, Doc("How far it is.")]
    metadata: Annotated[Mapping[str, str] | None, Doc("Your metadata, returned.")]


class BatchListJson(PageJson):
    data: Annotated[Sequence[BatchJson], Doc("The batches of the page.")]


def render_batch(batch: BatchRow, progress: Progress | None) -> BatchJson:
    """Return a batch; `progress` is its job's, `None` where it has none yet."""
    request: JsonObject = from_json(batch.request)
    # While the input is being read, nothing is validated, so OpenAI's clients must see no requests yet.
    job = progress.job if progress and progress.job.state != "loading" else None
    status, errors = _find_status(batch, job)
    ended = batch.settled if job is None else job.ended
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": request["endpoint"],
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "status": status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created),
        "in_progress_at": to_unix_seconds(batch.validated),
        "expires_at": int(batch.created) + parse_window(request["completion_window"]),
        "finalizing_at": to_unix_seconds(job.ended if job and job.state == "done" else None),
        # The time when the files were ready; that of the last call is `finalizing_at`.
        "completed_at": to_unix_seconds(batch.settled if status == "completed" else None),
        "failed_at": to_unix_seconds(batch.settled if status == "failed" else None),
        "expired_at": to_unix_seconds(ended if status == "expired" else None),
        "cancelling_at": to_unix_seconds(batch.cancelling),
        "cancelled_at": to_unix_seconds(ended if status == "cancelled" else None),
        "request_counts": {
            "total": job.units if job else 0,
            "completed": progress.answered if progress and job else 0,
            "failed": progress.ended - progress.answered if progress and job else 0,
        },
        "metadata": request.get("metadata"),
    }


def _find_status(batch: BatchRow, job: Job | None) -> tuple[BatchStatus, Sequence[BatchErrorJson]]:
    """Return OpenAI's name of the state of a batch, and its errors."""
    if batch.errors is not None:
        return "failed", from_json(batch.errors)
    # Until the files exist: a client that sees `completed` downloads them at once.
    if batch.settled is None:
        return _find_unsettled_status(batch, job), ()
    if job is None or job.state == "cancelled":
        return "cancelled", ()
    # OpenAI has no state for a batch that its budget stopped; `failed` is the one whose `errors` clients read.
    if job.state == "stopped":
        return "failed", [{"code": "batch_stopped", "line": None, "message": job.reason or "it has stopped", "param": None}]
    return "completed" if job.state == "done" else "expired" if job.state == "expired" else "in_progress", ()


def _find_unsettled_status(batch: BatchRow, job: Job | None) -> BatchStatus:
    has_ended = job is not None and job.state in ENDED_STATES
    # A job that ended before the cancellation reached it is complete, and its results are delivered as such.
    if batch.cancelling is not None and not (has_ended and job and job.state != "cancelled"):
        return "cancelling"
    if job is None:
        return "validating"
    return "finalizing" if has_ended else "in_progress"


class FileJson(TypedDict):
    """A file: uploaded, or made of a batch's results whenever it is read."""

    id: Annotated[str, Doc("Id of the file.")]
    object: Literal["file"]
    bytes: Annotated[int, Doc("Size; of a batch's results the size at the batch's end.")]
    created_at: Annotated[int, Doc("Unix seconds.")]
    expires_at: Annotated[int | None, Doc("Unix seconds; null: never.")]
    filename: Annotated[str, Doc("Name under which it was uploaded.")]
    purpose: Annotated[Literal["batch", "batch_output"], Doc("`batch`: uploaded; `batch_output`: a batch's results.")]
    status: Annotated[Literal["processed"], Doc("Deprecated by OpenAI; always `processed`.")]
    status_details: Annotated[None, Doc("Deprecated by OpenAI; always null.")]


class FileListJson(PageJson):
    data: Annotated[list[FileJson], Doc("The files.")]


class DeletedFileJson(TypedDict):
    id: Annotated[str, Doc("Id of the file.")]
    object: Literal["file"]
    deleted: Annotated[Literal[True], Doc("Always `true`.")]


def render_file(row: FileRow) -> FileJson:
    """Return a file without its content."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": to_unix_seconds(row.expires),
        "filename": row.filename,
        "purpose": cast(Literal["batch", "batch_output"], row.purpose),
        # Required by the types of OpenAI's clients, though deprecated.
        "status": "processed",
        "status_details": None,
    }
