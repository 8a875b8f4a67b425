"""Background worker of OpenAI's batches: makes a job of each new batch, and result files of each job that has ended.

A batch and its job have the same id. Safe to kill at any moment: the next process resumes unfinished batches, for each step
only writes what the one before it left to be done.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic_core import from_json, to_json
from typing_extensions import Doc, TypedDict

from fanout.core.errors import Fault, RequestError, StoppingError, StoreError
from fanout.core.lulls import LULLS
from fanout.jobs.input_files import bound_rows, read_rows
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.manager import JobManager
from fanout.observability.logs import log
from fanout.store.batches import BatchRow, BatchStore
from fanout.store.files import FileRow, FileStore, find_file, open_stored_file
from fanout.store.jobs.records import ENDED_STATES, JobState

WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MAX_WINDOW_S = 366 * 86_400
POLL_INTERVAL_S = 1.0
"""How often the store is searched for batches with something to do."""
SWEEP_INTERVAL_S = 600.0
"""How often expired files are deleted."""
MAX_TASKS = 2
"""Inputs that are validated, or files that are measured, at once."""
_LINE_PATH = re.compile(r"line (\d+)(?:: (.*))?", re.DOTALL)


def parse_window(text: str) -> int:
    """Return the seconds of a `completion_window`, or raise `ValueError` where it is malformed or too long."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(found[1]) * WINDOW_UNITS_S[found[2]] if found else 0
    if not 1 <= seconds <= MAX_WINDOW_S:
        raise ValueError(f"`{text[:40]}` is not allowed: `24h`, or another number of `s`, `m`, `h` or `d`, up to a year")
    return seconds


def is_output_file(file_id: str) -> bool:
    """Return whether a batch's file is the one of its answers, not the one of requests without an answer."""
    return file_id.endswith("-output")


class BatchErrorJson(TypedDict):
    """One thing that is wrong with the input."""

    code: Annotated[str, Doc("What is wrong, for programs.")]
    line: Annotated[int | None, Doc("Line of the input file, from 1.")]
    message: Annotated[str, Doc("What is wrong, for people.")]
    param: Annotated[str | None, Doc("The field at fault.")]


@dataclass(slots=True)
class FileSizes:
    """Bytes of a batch's two files. They are made anew whenever they are read, so only their sizes are kept."""

    output: int = 0
    errors: int = 0


class OpenAIBatchWorker:
    """Background task for the batches of a store."""

    def __init__(
        self,
        manager: JobManager,
        batches: BatchStore,
        files: FileStore,
        measure_files: Callable[[Job], Awaitable[FileSizes]],
        may_start: Callable[[], bool],
    ) -> None:
        self._manager, self._batches, self._files, self._measure_files = manager, batches, files, measure_files
        self._may_start = may_start
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: set[str] = set()  # by a bug of ours: trying them again every second would not help
        self._wake = asyncio.Event()

    def notify(self) -> None:
        """Search at once: there may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        swept = 0.0
        try:
            while True:
                self._wake.clear()  # before the search: what is announced during it leads to another one
                with suppress(StoreError):
                    await self._start_tasks()
                    if time.monotonic() - swept > SWEEP_INTERVAL_S:
                        swept = time.monotonic()
                        await self._files.sweep()
                try:
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await self._wake.wait()
                except TimeoutError:
                    await LULLS.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _start_tasks(self) -> None:
        if not self._may_start():
            return
        for batch, job_state in await self._batches.list_due(ENDED_STATES):
            if batch.cancelling is not None and job_state == "loading" and batch.id in self._tasks:
                self._tasks[batch.id].cancel()  # its input is not read to the end; the next search settles the batch
            elif batch.id not in self._tasks and batch.id not in self._failed and len(self._tasks) < MAX_TASKS:
                task = asyncio.create_task(self._advance(batch, job_state), name=f"batch {batch.id}")
                self._tasks[batch.id] = task
                task.add_done_callback(partial(self._forget, batch.id))

    def _forget(self, batch_id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[batch_id]
        if not task.cancelled() and (error := task.exception()):
            self._failed.add(batch_id)  # until this process ends: the next one may be newer
            log.error("batch.resume_failed", batch=batch_id, exc_info=error)

    async def _advance(self, batch: BatchRow, job_state: JobState | None) -> None:
        """Take the next step of a batch; where the database fails, the next search takes it again, or the next process."""
        with suppress(StoreError, StoppingError):
            if job_state is None and batch.cancelling is not None:
                await self._batches.update(batch.id, {"settled": time.time()})
            elif job_state is None:
                await self._create_job(batch)
            elif job_state in ENDED_STATES:
                await self._settle(batch)
            elif batch.cancelling is not None and job_state != "loading":
                await self._manager.cancel(batch.id)

    async def _create_job(self, batch: BatchRow) -> None:
        """Create the job of a batch; a bad input settles the batch as failed, and nothing is sent."""
        request = from_json(batch.request)
        try:
            file = await find_file(self._files, request["input_file_id"], "input_file_id")
            spec = JobSpec(
                kind="requests",
                endpoint=request["endpoint"],
                window=request["completion_window"],
                deadline=batch.created + parse_window(request["completion_window"]),
                metadata=request.get("metadata", {}),
                input={"name": file.filename, "file": file.id},
                unattended=True,
                key_id=request.get("key_id"),
            )
            source = read_rows(open_stored_file(self._files, file.id, file.bytes), "jsonl")
            if (left := request.get("rows_left")) is not None:
                source = bound_rows(source, left)
            await self._manager.create(spec, source, account_id=batch.account_id, job_id=batch.id)
        except RequestError as error:
            if error.faults[0].kind == "wrong_state":  # it was cancelled meanwhile, and is settled by the next search
                return
            errors = to_json([_render_fault(fault) for fault in error.faults]).decode()
            await self._batches.update(batch.id, {"errors": errors, "settled": time.time()})
            return
        # After the job: a process killed in between finds the job, which can run although the batch is not marked.
        await self._batches.update(batch.id, {"validated": time.time()})
        self._manager.supervisor.notify()

    async def _settle(self, batch: BatchRow) -> None:
        """Measure and name the files of a batch whose job has ended."""
        # Settled by the last write of all: whoever dies before it leaves the whole step to the next process.
        sizes = await self._measure_files(await self._manager.find_job(batch.id))
        output = await self._name_file(batch, "output", sizes.output)
        errors = await self._name_file(batch, "error", sizes.errors)
        await self._batches.update(batch.id, {"settled": time.time(), "output_file": output, "error_file": errors})

    async def _name_file(self, batch: BatchRow, kind: str, size: int) -> str | None:
        file_id, name = f"file-{batch.id.removeprefix('batch_')}-{kind}", f"{batch.id}_{kind}.jsonl"
        if not size:
            await self._files.delete(file_id)  # left by an earlier end, before the job was resumed
            return None
        lifetime: Mapping[str, Any] | None = from_json(batch.request).get("output_expires_after")
        now = time.time()
        expires = now + lifetime["seconds"] if lifetime else None
        await self._files.add_results(FileRow(file_id, now, batch.account_id, name, "batch_output", size, batch.id, expires))
        return file_id


def _render_fault(fault: Fault) -> BatchErrorJson:
    """Return a fault of the input as OpenAI writes it, with its line."""
    found = _LINE_PATH.fullmatch(fault.path)
    line, param = (int(found[1]), found[2]) if found else (None, fault.path or None)
    return {"code": fault.kind, "line": line, "message": fault.message, "param": param}


@asynccontextmanager
async def open_batch_worker(
    manager: JobManager,
    batches: BatchStore,
    files: FileStore,
    measure_files: Callable[[Job], Awaitable[FileSizes]],
    may_start: Callable[[], bool],
) -> AsyncGenerator[OpenAIBatchWorker]:
    """Run a worker in the background.

    Args:
        manager: of the jobs.
        batches: those of the store.
        files: their inputs and results.
        measure_files: returns the sizes of the files of a job that has ended.
        may_start: whether what a batch needs is at hand; else it is left to a later search.
    """
    worker = OpenAIBatchWorker(manager, batches, files, measure_files, may_start)
    task = asyncio.create_task(worker.run(), name="batches")
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
