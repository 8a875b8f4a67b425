"""`/v1/batches`: OpenAI's batches. Each is a job of the same id; here is its form, and who sees to its beginning and end.

Source: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json, to_json

from fanout.core.errors import RequestError, StoreError
from fanout.core.faults import Fault
from fanout.core.units import to_unix_seconds
from fanout.jobs.input_files import read_rows
from fanout.jobs.job import ENDED_STATES, Job, JobSpec, Progress
from fanout.jobs.manager import JobManager
from fanout.observability.logs import log
from fanout.requests.bodies import Metadata
from fanout.server.dialects.openai import batch_files
from fanout.server.lifecycle import BATCH_STORE, FILE_STORE, JOB_MANAGER
from fanout.server.middleware import auth
from fanout.server.request_body import read_body
from fanout.server.resources.files import find_file
from fanout.server.resources.listing import ListQuery, choose_account, page_response, read_query
from fanout.server.resources.storage import needs_store
from fanout.server.resources.upload import MAX_LIFETIME_S, MIN_LIFETIME_S
from fanout.server.responses import json_response
from fanout.store.batches import BatchChange, BatchRow, BatchStore
from fanout.store.file_reader import open_stored_file
from fanout.store.files import FileRow, FileStore
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import JobState

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MAX_WINDOW_S = 366 * 86_400
LOOK_S = 1.0
"""How often a batch is looked for whose job is to be made, or has ended."""
SWEEP_S = 600.0
MOST_TASKS = 2
"""Inputs that are checked, or files that are measured, at once."""
FAULT = re.compile(r"line (\d+)(?:: (.*))?", re.DOTALL)


def _window(text: str) -> str:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found or not 1 <= int(found[1]) * UNITS[found[2]] <= MAX_WINDOW_S:
        raise ValueError(f"`{text[:40]}` is not allowed: `24h`, or another number of `s`, `m`, `h` or `d`, up to a year")
    return text


def window_s(text: str) -> int:
    """The seconds of a checked `completion_window`."""
    return int(text[:-1]) * UNITS[text[-1]]


class ExpiresAfter(BaseModel):
    """When the files of results expire."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    anchor: Literal["created_at"]
    """From when on the seconds are counted: the file's making."""
    seconds: int = Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)
    """An hour to thirty days."""


class BatchBody(BaseModel):
    """A request for a batch."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    input_file_id: str = Field(min_length=1, max_length=256)
    """The id of an uploaded JSONL file, a request on each line."""
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    """Where its requests would be sent one by one."""
    completion_window: Annotated[
        str, AfterValidator(_window), Field(json_schema_extra={"pattern": "^[0-9]{1,9}[smhd]$", "examples": ["24h"]})
    ]
    """How long it may take: `24h`, or another number of `s`, `m`, `h` or `d`. What is not done by then expires."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours."""
    output_expires_after: ExpiresAfter | None = None
    """When the files of results expire; absent: never."""

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be a JSON object")  # noqa: TRY004 - only this one is a wrong field to pydantic
        return value


@needs_store
async def create_batch(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/batches`."""
    asked = await read_body(request, BatchBody)
    auth.refuse_caller_credentials(request)
    await find_file(request.app[FILE_STORE], asked.input_file_id, "input_file_id")
    id = f"batch_{uuid.uuid4().hex}"
    await request.app[BATCH_STORE].create(
        BatchRow(id, time.time(), auth.account_id(request) or "", asked.model_dump_json(exclude_none=True))
    )
    request.app[CLERK].look.set()
    return await _answered(request, id)


@needs_store
async def list_batches(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/batches`."""
    asked, batches = read_query(request, ListQuery), request.app[BATCH_STORE]
    found = await batches.list_batches(
        limit=asked.limit + 1,
        after=await find_batch(batches, asked.after, "after") if asked.after else None,
        account_id=choose_account(request, asked),
    )
    shown = [render_batch(row, await _progress(request.app[JOB_MANAGER], row.id)) for row in found[: asked.limit]]
    return page_response(shown, has_more=len(found) > asked.limit)


@needs_store
async def get_batch(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/batches/{batch_id}`."""
    return await _answered(request, request.match_info["batch_id"])


@needs_store
async def cancel_batch(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/batches/{batch_id}/cancel`."""
    row = await find_batch(request.app[BATCH_STORE], request.match_info["batch_id"])
    manager = request.app[JOB_MANAGER]
    progress = await _progress(manager, row.id)
    if row.settled is not None or (progress and progress.job.state in ENDED_STATES):
        status = render_batch(row, progress)["status"]
        raise RequestError([Fault("batch_id", f"batch `{row.id}` is {status}: it can no longer be cancelled", "wrong_state")])
    if row.cancelling is None:
        await request.app[BATCH_STORE].update(row.id, {"cancelling": time.time()})
    if progress and progress.job.state != "loading":
        await manager.cancel(row.id)
    request.app[CLERK].look.set()
    return await _answered(request, row.id)


async def _answered(request: web.Request, id: str) -> web.Response:
    row = await find_batch(request.app[BATCH_STORE], id)
    return json_response(render_batch(row, await _progress(request.app[JOB_MANAGER], id)))


async def find_batch(batches: BatchStore, id: str, param: str = "batch_id") -> BatchRow:
    """Raises:
    RequestError: there is no such batch.
    """
    row = await batches.find(id)
    if row is None:
        raise RequestError([Fault(param, f"no batch `{id[:100]}`", "batch_not_found")])
    return row


async def _progress(manager: JobManager, id: str) -> Progress | None:
    """How far a batch's job is; `None`: it has none."""
    with suppress(RequestError):
        return await manager.read_progress(id)
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
        "expires_at": int(row.created) + window_s(asked["completion_window"]),
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


def _errors(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Faults of the input, each with its line, as OpenAI tells them."""
    told = []
    for fault in faults:
        found = FAULT.fullmatch(fault.path)
        line, param = (int(found[1]), found[2]) if found else (None, fault.path or None)
        told.append({"code": fault.kind, "line": line, "message": fault.message, "param": param})
    return told


# Its beginning and end


class Clerk:
    """Makes the jobs of new batches, and the files of those that have ended. Who dies in it is followed by the next process."""

    def __init__(self, manager: JobManager, jobs: JobStore, batches: BatchStore, files: FileStore) -> None:
        self._manager, self._jobs, self._batches, self._files = manager, jobs, batches, files
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._broken: set[str] = set()
        """Batches that failed here for a reason of our own; looking at them every second would not help."""
        self.look = asyncio.Event()
        """There may be something to do."""

    async def attend(self) -> None:
        """Works until it is cancelled."""
        swept = 0.0
        try:
            while True:
                self.look.clear()
                with suppress(StoreError):
                    await self._begin()
                    if time.monotonic() - swept > SWEEP_S:
                        swept = time.monotonic()
                        await self._files.sweep()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self.look.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _begin(self) -> None:
        for batch, job_state in await self._batches.list_due(ENDED_STATES):
            if batch.id not in self._tasks and batch.id not in self._broken and len(self._tasks) < MOST_TASKS:
                task = asyncio.create_task(self._attended(batch, job_state), name=f"clerk {batch.id}")
                self._tasks[batch.id] = task
                task.add_done_callback(partial(self._gone, batch.id))

    def _gone(self, id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[id]
        if not task.cancelled() and (error := task.exception()):
            self._broken.add(id)
            log.error("a batch cannot be gone on with", batch=id, exc_info=error)

    async def _attended(self, row: BatchRow, job_state: JobState | None) -> None:
        """What is to be done now; a database that fails is tried again at the next look."""
        with suppress(StoreError):
            if job_state is None and row.cancelling is not None:
                await self._batches.update(row.id, {"settled": time.time()})
            elif job_state is None:
                await self._validate(row)
            elif job_state in ENDED_STATES:
                await self._settle(row.id)
            elif row.cancelling is not None and job_state != "loading":
                await self._manager.cancel(row.id)

    async def _validate(self, row: BatchRow) -> None:
        """Makes a batch's job; where its input is bad, says why, and nothing is sent."""
        asked = BatchBody.model_validate_json(row.request)
        try:
            file = await find_file(self._files, asked.input_file_id, "input_file_id")
            spec = JobSpec(
                kind="requests",
                endpoint=asked.endpoint,
                window=asked.completion_window,
                deadline=row.created + window_s(asked.completion_window),
                metadata=asked.metadata or {},
                input={"name": file.filename, "file": file.id},
                unattended=True,
            )
            source = read_rows(open_stored_file(self._files, file.id, file.bytes), "jsonl")
            await self._manager.create(spec, source, account_id=row.account_id, id=row.id)
        except RequestError as error:
            await self._batches.update(row.id, {"errors": to_json(_errors(error.faults)).decode(), "settled": time.time()})
            return
        await self._batches.update(row.id, {"validated": time.time()})
        self._manager.supervisor.notify()

    async def _settle(self, id: str) -> None:
        """Measures a batch's files, and names them."""
        job = await self._manager.find_job(id)
        sizes = await batch_files.measure_files(self._manager, self._jobs, job)
        named: BatchChange = {
            "output_file": await self._named(job, batch_files.output_id(id), f"{id}_output.jsonl", sizes.output),
            "error_file": await self._named(job, batch_files.error_id(id), f"{id}_error.jsonl", sizes.errors),
        }
        await self._batches.update(id, {"settled": time.time(), **named})

    async def _named(self, job: Job, file: str, name: str, size: int) -> str | None:
        if not size:
            await self._files.delete(file)  # of an end before it was resumed
            return None
        row = await self._batches.find(job.id)
        after = from_json(row.request).get("output_expires_after") if row else None
        now = time.time()
        expires = now + after["seconds"] if after else None
        await self._files.add_results(FileRow(file, now, job.account_id, name, "batch_output", size, job.id, expires))
        return file


@asynccontextmanager
async def open_clerk(manager: JobManager, jobs: JobStore, batches: BatchStore, files: FileStore) -> AsyncGenerator[Clerk]:
    """A clerk at work."""
    clerk = Clerk(manager, jobs, batches, files)
    task = asyncio.create_task(clerk.attend(), name="clerk")
    try:
        yield clerk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


CLERK = web.AppKey("clerk", Clerk)
