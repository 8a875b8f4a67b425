"""Intake of jobs: every row of an input is validated before anything is sent, and every bad row is reported with its line."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice

from fanout.core.errors import Fault, LeaseLostError, RequestError, StoppingError, StoreError
from fanout.core.schema import Call
from fanout.core.usage import Usage
from fanout.dispatch.request import Request
from fanout.jobs.estimate import JobEstimate
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import FINGERPRINT_JSON, Fingerprint, Job, JobSpec, build_state_error
from fanout.jobs.loading import LoadingStoppedError, load_in_thread, make_budget
from fanout.jobs.planner import JobPlanner, fingerprint_names, is_refused
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import InputItem, JobChange, NewJobRow

MAX_FAULTS = 1_000
MAX_BAD_ROWS = 100_000  # the rest is not read: the input as a whole is wrong
MAX_FAULT_CHARS = 1_000
"""Of a fault's path, and of its message, because both may quote the row."""
MAX_ROWS = 10_000_000
CHUNK_ROWS = 256
CHUNK_BYTES = 16 * 2**20
"""Bytes of prompts and columns after which a chunk is written."""
MAX_MODELS = 1_000
"""Different models that the requests of one job may name."""
INTAKE_RENEWAL_INTERVAL_S = 0.5
"""Also how soon an intake ends whose job was cancelled."""
COPY_CHUNK_ITEMS = 10_000  # one transaction: a longer one would block other writers


class JobCreator:
    """Creates jobs in a store. Until its input is complete a job is `loading`; if the input is bad, the job is discarded."""

    def __init__(self, store: JobStore, planner: JobPlanner, owner: str) -> None:
        self._store, self._planner, self._owner = store, planner, owner
        self._reading: set[Intake] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Give up all inputs, those to come, too."""
        self._is_stopping = True
        for intake in self._reading:
            intake.budget.stop()

    async def create(
        self, spec: JobSpec, rows: Iterable[InputRow | BadRow], *, account_id: str, job_id: str, forked_from: str | None
    ) -> None:
        intake = Intake(self._planner, spec, account_id, rows)
        row = _new_row(job_id, account_id, spec, {}, forked_from)
        async with self._load(row, on_lost=intake.budget.stop) as (number, epoch):
            with self._read(intake):
                while (items := await load_in_thread(intake.read_chunk, intake.budget)) is not None:
                    if items and not intake.faults:  # after a fault the rest is only validated
                        await self._store.inputs.add(number, items, epoch)
            # Found by the database: the ids of a million rows need not fit into memory.
            for custom_id, line in await self._store.inputs.find_repeated_ids(number):
                intake.faults.append(Fault(f"line {line}: custom_id", f"`{custom_id}` occurs more than once in the input"))
            intake.check()
        await self._complete(number, epoch, intake.items, intake.units, intake.fingerprint)

    async def estimate(self, spec: JobSpec, rows: Iterable[InputRow | BadRow]) -> JobEstimate:
        estimate = JobEstimate()
        intake = Intake(self._planner, spec, "", rows, estimate)
        with self._read(intake):
            while await load_in_thread(intake.read_chunk, intake.budget) is not None:
                pass
        intake.check()
        return estimate

    @contextmanager
    def _read(self, intake: Intake) -> Iterator[None]:
        """Let `stop` stop an intake while it is read.

        Raises:
            StoppingError: it was stopped.
        """
        self._reading.add(intake)
        if self._is_stopping:
            intake.budget.stop()
        try:
            yield
        except LoadingStoppedError:
            if self._is_stopping:
                raise StoppingError from None
            raise
        finally:
            self._reading.discard(intake)

    async def fork(self, job: Job, spec: JobSpec) -> str:
        """Create a job with the same input, by the current configuration, and return its id."""
        forked = replace(job, spec=spec)
        fingerprint, units = self._planner.fingerprint_job(forked), self._planner.count_units(forked)
        job_id = f"{job.id.partition('_')[0]}_{uuid.uuid4().hex}"
        async with self._load(_new_row(job_id, job.account_id, spec, fingerprint, job.id)) as (number, epoch):
            for first in range(0, job.items, COPY_CHUNK_ITEMS):
                await self._store.inputs.copy(job.number, number, first, first + COPY_CHUNK_ITEMS, epoch)
        await self._complete(number, epoch, job.items, units, fingerprint)
        return job_id

    @asynccontextmanager
    async def _load(self, row: NewJobRow, on_lost: Callable[[], None] = lambda: None) -> AsyncGenerator[tuple[int, int]]:
        """Hold a new job while its input is added; yield its number and epoch. A failure discards it.

        Raises:
            RequestError: it was cancelled meanwhile. `on_lost` is called as soon as that is found.
        """
        number, epoch = await self._store.create(row, self._owner)
        renewal = asyncio.create_task(self._keep_lease(number, epoch, on_lost), name="loading")
        try:
            yield number, epoch
        except (LoadingStoppedError, LeaseLostError):
            raise build_state_error("the job was cancelled while its input was being read") from None
        except BaseException:
            with suppress(StoreError):
                # Shielded: the usual failure is a cancellation, after a client disconnects during its upload.
                await asyncio.shield(self._store.discard(number))
            raise
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def _keep_lease(self, number: int, epoch: int, on_lost: Callable[[], None]) -> None:
        # Without renewal, another process would consider a slow upload abandoned and discard it.
        while True:
            await asyncio.sleep(INTAKE_RENEWAL_INTERVAL_S)
            with suppress(StoreError):
                if await self._store.leases.renew(number, epoch, None) is None:
                    on_lost()

    async def _complete(self, number: int, epoch: int, items: int, units: int, fingerprint: Fingerprint) -> None:
        fingerprint_json = FINGERPRINT_JSON.dump_json(fingerprint).decode()
        queued: JobChange = {"state": "queued", "owner": None, "items": items, "units": units, "fingerprint": fingerprint_json}
        if not await self._store.update(number, queued, states=("loading",), epoch=epoch):
            raise StoreError("another process discarded the job while its input was being read")


class Intake:
    """The input of a job while it is read. `read_chunk` runs in a thread, one at a time."""

    def __init__(
        self,
        planner: JobPlanner,
        spec: JobSpec,
        account_id: str,
        rows: Iterable[InputRow | BadRow],
        estimate: JobEstimate | None = None,
    ) -> None:
        self._spec, self._rows, self._estimate = spec, iter(rows), estimate
        self._builder, self._dispatcher = planner.make_builder(spec, account_id), planner.dispatcher
        self.fingerprint = dict(planner.fingerprint_spec(spec, self._builder, is_estimate=estimate is not None))
        self.items = self.units = self._bad_rows = 0
        self.faults: list[Fault] = []
        self.budget = make_budget(planner.dispatcher.settings.environment)
        self._has_more_faults = False
        providers = self._dispatcher.settings.providers
        self._in_batches = {name for name, row in providers.items() if row.row.economy} if spec.via == "batch" else set()
        self._price = partial(self._dispatcher.compute_cost, in_batch=spec.via == "batch")
        self._stored_bytes = self._chunk_bytes = 0
        self._priced: set[str] = set()
        self._planned: tuple[Request, list[Call]] | None = None
        """The last request, without its prompt, and its calls."""

    def read_chunk(self) -> list[InputItem] | None:
        """Return the items of the next rows, fewer where they are long; `None` at the end."""
        items: list[InputItem] = []
        read = self._chunk_bytes = 0
        for row in islice(self._rows, CHUNK_ROWS):
            self.budget.spend()  # stops an intake that nobody awaits
            read += 1
            faults = [Fault("", row.reason)] if isinstance(row, BadRow) else self._add_row(row, items)
            if faults:
                self._bad_rows += 1
                self._keep_faults(f"line {row.line}", faults)
            if self._chunk_bytes > CHUNK_BYTES or self._bad_rows >= MAX_BAD_ROWS:
                break
        return items if read and self._bad_rows < MAX_BAD_ROWS else None

    def _keep_faults(self, where: str, faults: Sequence[Fault]) -> None:
        """Keep the faults of a row, up to what one answer can report."""
        room = MAX_FAULTS - len(self.faults)
        self._has_more_faults = self._has_more_faults or len(faults) > room
        for fault in faults[:room]:
            path = fault.path[:MAX_FAULT_CHARS]
            self.faults.append(Fault(f"{where}: {path}" if path else where, fault.message[:MAX_FAULT_CHARS], fault.kind))

    def check(self) -> None:
        """Raise `RequestError` with all faults of the input, if it has any."""
        if self._has_more_faults:
            self.faults.append(Fault("", f"{self._bad_rows} rows are bad; not all are listed", "too_many_faults"))
        if not self.items and not self.faults:
            self.faults.append(Fault("input", "holds no row"))
        if self.faults:
            raise RequestError(self.faults)

    def _add_row(self, row: InputRow, items: list[InputItem]) -> Sequence[Fault]:
        """Add the item of a row, or return the faults of the row."""
        try:
            custom_id, body = self._builder.parse_row(row.values)
            calls = self._plan(self._builder.build_request(body))
        except RequestError as error:
            return error.faults
        refused = {call.target.label: call.refusal for call in calls if is_refused(call, is_estimate=bool(self._estimate))}
        if refused:
            return [Fault(why.param or "model", f"{label}: {why.message}") for label, why in refused.items() if why]
        if self._spec.kind == "requests":
            fresh = [call for call in calls if call.target.name not in self.fingerprint]
            self.fingerprint |= fingerprint_names(fresh, self._dispatcher.settings.providers)
            if len(self.fingerprint) > MAX_MODELS:
                return [Fault("model", f"more than {MAX_MODELS} different models are not allowed in one job")]
        self._require_prices(calls)
        if self._estimate:
            self._estimate.add(calls, self._price, self._in_batches)
        self._count_row(len(body))
        items.append(InputItem(self.items, row.line, custom_id, body))
        self.items += 1
        self.units += len(calls)
        return []

    def _plan(self, request: Request) -> list[Call]:
        """Return the calls of a request, or those of the row before it that differs in the text of its prompt alone.

        What models stand for, and whether they can be called, does not depend on that text; only an estimate counts it.
        """
        if self._estimate or request.messages is not None or not all(isinstance(prompt, str) for prompt in request.prompts):
            return self._dispatcher.plan(request)
        shape = replace(request, prompts=("",) * len(request.prompts))
        if self._planned is None or self._planned[0] != shape:
            self._planned = shape, self._dispatcher.plan(shape)
        return self._planned[1]

    def _count_row(self, length: int) -> None:
        """Raise `RequestError` if the job would become too large: templates and compressed files expand a small upload."""
        self._chunk_bytes += length
        self._stored_bytes += length
        if self._stored_bytes > self.budget.max_bytes:
            sentence = f"holds more than {self.budget.max_bytes:,} bytes of prompts and columns (FANOUT_MAX_JOB_BYTES)"
            raise RequestError([Fault("input", sentence)])
        if self.items >= MAX_ROWS:
            raise RequestError([Fault("input", f"holds more than {MAX_ROWS:,} rows")])

    def _require_prices(self, calls: Sequence[Call]) -> None:
        """Raise `RequestError` if a cost limit could not be enforced because the price of a model is unknown."""
        if self._spec.max_cost_usd is None:
            return
        # Each model once: to compute a price in each of a million rows would slow the intake.
        fresh = [call for call in calls if call.target.name not in self._priced]
        if unknown := {call.target.label for call in fresh if self._dispatcher.compute_cost(call, Usage(1, 1)) is None}:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            sentence = f"cannot be enforced: the price of {names} is unknown; add a `price` in providers.json"
            raise RequestError([Fault("max_cost_usd", sentence)])
        if len(self._priced) < MAX_MODELS:
            self._priced.update(call.target.name for call in fresh)


def _new_row(job_id: str, account_id: str, spec: JobSpec, fingerprint: Fingerprint, forked_from: str | None) -> NewJobRow:
    fingerprint_json = FINGERPRINT_JSON.dump_json(fingerprint).decode()
    return NewJobRow(job_id, time.time(), account_id, spec.to_json(), fingerprint_json, forked_from)
