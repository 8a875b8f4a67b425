"""Creation of jobs: from an input, and as a fork of another job."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from fanout.core.errors import Fault, StoreError
from fanout.jobs.estimate import JobEstimate
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.intake import Intake
from fanout.jobs.job import FINGERPRINT_JSON, Fingerprint, Job, JobSpec
from fanout.jobs.planner import JobPlanner
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import NewJobRow

RENEWAL_INTERVAL_S = 2.0
"""How often the lease of a job is renewed while its input is read."""
COPY_CHUNK_ITEMS = 10_000
"""Items of a fork copied in one transaction: others want to write, too."""


class JobCreator:
    """Creates jobs in a store. Until its input is complete a job is `loading`; if that fails, nothing is kept of it."""

    def __init__(self, store: JobStore, planner: JobPlanner, owner: str) -> None:
        self._store, self._planner, self._owner = store, planner, owner

    async def create(
        self, spec: JobSpec, rows: Iterable[InputRow | BadRow], *, account_id: str, job_id: str, forked_from: str | None
    ) -> None:
        """Create a job; see `JobManager.create`."""
        intake = self._open_intake(spec, account_id)
        async with self._load(_new_row(job_id, account_id, spec, {}, forked_from)) as (number, epoch):
            source = iter(rows)
            while (items := await asyncio.to_thread(intake.read_chunk, source)) is not None:
                if items and not intake.faults:  # after a fault the rest is only validated
                    await self._store.inputs.add(number, items, epoch)
            # In the database: the ids of a million rows are not held in memory.
            for custom_id, line in await self._store.inputs.find_repeated_ids(number):
                intake.faults.append(Fault(f"line {line}: custom_id", f"`{custom_id}` stands in the input more than once"))
            intake.check()
        await self._complete(number, epoch, intake.items, intake.units, intake.fingerprint)

    async def estimate(self, spec: JobSpec, rows: Iterable[InputRow | BadRow]) -> JobEstimate:
        """Return the estimate of a job; see `JobManager.estimate`."""
        estimate = JobEstimate()
        intake, source = self._open_intake(spec, "", estimate), iter(rows)
        while await asyncio.to_thread(intake.read_chunk, source) is not None:
            pass
        intake.check()
        return estimate

    async def fork(self, job: Job, spec: JobSpec) -> str:
        """Create a job with the same input, by the current configuration, and return its id."""
        forked = replace(job, spec=spec)
        fingerprint, units = self._planner.fingerprint_job(forked), self._planner.count_units(forked)
        job_id = f"{job.id.partition('_')[0]}_{uuid.uuid4().hex}"
        async with self._load(_new_row(job_id, job.account_id, spec, fingerprint, job.id)) as (number, epoch):
            for first in range(0, job.items, COPY_CHUNK_ITEMS):
                await self._store.inputs.copy(job.number, number, first, first + COPY_CHUNK_ITEMS)
        await self._complete(number, epoch, job.items, units, fingerprint)
        return job_id

    def _open_intake(self, spec: JobSpec, account_id: str, estimate: JobEstimate | None = None) -> Intake:
        builder = self._planner.make_builder(spec, account_id)
        fingerprint = self._planner.fingerprint_spec(spec, builder)
        return Intake(spec, builder, self._planner.dispatcher, fingerprint, estimate)

    @asynccontextmanager
    async def _load(self, row: NewJobRow) -> AsyncGenerator[tuple[int, int]]:
        """Hold a new job while its input is added; yield its number and epoch. A failure discards it."""
        number = await self._store.create(row)
        renewal = None
        try:
            epoch = await self._store.leases.acquire(number, self._owner) or 0
            renewal = asyncio.create_task(self._keep_lease(number, epoch), name="loading")
            yield number, epoch
        except BaseException:
            with suppress(StoreError):
                # Shielded: the usual failure is a cancellation, by a client that went away while it uploaded.
                await asyncio.shield(self._store.discard(number))
            raise
        finally:
            if renewal:
                renewal.cancel()
                await asyncio.gather(renewal, return_exceptions=True)

    async def _keep_lease(self, number: int, epoch: int) -> None:
        # However slowly the input arrives: another process would take the job for abandoned and discard it.
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL_S)
            with suppress(StoreError):
                await self._store.leases.renew(number, epoch, None)

    async def _complete(self, number: int, epoch: int, items: int, units: int, fingerprint: Fingerprint) -> None:
        written = FINGERPRINT_JSON.dump_json(fingerprint).decode()
        if not await self._store.update(
            number,
            {"state": "queued", "owner": None, "items": items, "units": units, "fingerprint": written},
            states=("loading",),
            epoch=epoch,
        ):
            raise StoreError("the job was given up while its input was read")


def _new_row(job_id: str, account_id: str, spec: JobSpec, fingerprint: Fingerprint, forked_from: str | None) -> NewJobRow:
    written = FINGERPRINT_JSON.dump_json(fingerprint).decode()
    return NewJobRow(job_id, time.time(), account_id, spec.to_json(), written, forked_from)
