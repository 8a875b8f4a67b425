"""Submission of economy batches: units are gathered, written and sent."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure, Outcome, Timing
from fanout.dispatch import retries
from fanout.jobs.economy.ends import UnitEnds
from fanout.jobs.economy.run import EconomyRun, OpenBatch
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.observability.logs import log
from fanout.providers.economy.api import EconomyRequest
from fanout.store.jobs.economy_batches import BatchedUnit, EconomyBatchRow
from fanout.store.jobs.records import Place

SMALL_BATCH = 10
"""Fewer units are not worth the wait, where the job allows that they are sent at once."""


class Submission:
    """Sender of a model's batches."""

    def __init__(self, run: EconomyRun, ends: UnitEnds) -> None:
        self._run, self._ends = run, ends

    async def submit_next(self) -> bool:
        """Submit one batch; return whether there were units for another one."""
        group, requests, reserved = await self._gather()
        if not group:
            return False
        if self._run.job.spec.live_rest and len(group) < SMALL_BATCH and self._run.queue.exhausted:
            self._send_live(group, reserved)
            return False
        token = f"fanout-{uuid.uuid4().hex}"
        units = [BatchedUnit(*unit.unit[1:], unit.attempt, unit.reserved_usd) for unit in group]
        row = EconomyBatchRow(token, self._run.job.number, self._run.provider, self._run.model, time.time(), None, units)
        await asyncio.gather(*(self._run.journal.record_start(unit) for unit in group))
        await self._run.batches.add(row, self._run.epoch)
        try:
            vendor_id = await self._run.api.submit(requests, self._run.model, token)
        except ProviderError as error:
            await self._refuse(row, group, reserved, error.failure)
            return False
        await self._run.batches.set_vendor_id(token, vendor_id)
        log.info("economy.submitted", **self._run.labels, batch=vendor_id, units=len(group))
        self._run.add(OpenBatch(row._replace(vendor_id=vendor_id), reserved))
        return bool(self._run.again) or not self._run.queue.exhausted

    async def _gather(self) -> tuple[list[PendingUnit], list[EconomyRequest], dict[Place, float]]:
        """Return the units of the next batch, written, and the money set aside for each."""
        group: list[PendingUnit] = []
        requests: list[EconomyRequest] = []
        reserved: dict[Place, float] = {}
        size = 0
        async for unit in self._iterate_units():
            place = unit.unit[1:]
            if any(place in batch.attempts for batch in self._run.open) or await self._end_unsent(unit):
                continue
            if not (money := await self._reserve(unit, bool(group))):
                break
            request = await self._write(unit, money[0])
            if request is None:
                continue
            is_other = bool(requests) and request.path != requests[0].path
            if is_other or size + len(request.body) > self._run.row.max_bytes > len(request.body):
                self._run.settlement.settle(money[0], None)
                self._run.again.insert(0, unit)
                break
            group.append(unit)
            requests.append(request)
            reserved[place] = money[0]
            size += len(request.body)
            if len(group) >= self._run.row.max_requests:
                break
        return group, requests, reserved

    async def _iterate_units(self) -> AsyncGenerator[PendingUnit]:
        while self._run.may_send:
            again = self._run.again
            unit = again.pop(0) if again else await self._run.source.take_for_batch(self._run.queue)
            if unit is None:
                return
            yield unit

    async def _end_unsent(self, unit: PendingUnit) -> bool:
        if unit.call.fusion is not None:  # its question is made of answers; it is sent at once when these have come
            self._run.queue.put_first(unit)
            return True
        if not await self._run.settlement.end_unsent(unit):
            return False
        await self._run.source.release_fusions(unit)
        return True

    async def _reserve(self, unit: PendingUnit, has_others: bool) -> tuple[float] | None:
        settlement, ratio = self._run.settlement, self._run.row.price_ratio
        money = settlement.reserve(self._run.queue, unit, ratio)
        while money is None and await settlement.draw():
            money = settlement.reserve(self._run.queue, unit, ratio)
        if money is not None:
            return (money,)
        self._run.again.insert(0, unit)
        # Calls in flight may cost less than reserved; the budget is spent only when none is left.
        if not (has_others or self._run.source.running):
            self._run.settlement.stop_without_money()
        return None

    async def _write(self, unit: PendingUnit, money: float) -> EconomyRequest | None:
        """Return a unit as a request; one that cannot be written has ended, or is sent at once."""
        request_id = "-".join(map(str, (*unit.unit[1:], unit.attempt)))
        failure: Failure
        try:
            request = await self._run.api.write(unit.call, request_id)
            # A hook that was set since the job was made may be there to keep its texts from the provider.
            has_hooks = self._run.dispatcher.upstreams.has_hooks
            if request.path in self._run.api.paths and not has_hooks:
                return request
            what = "with FANOUT_HOOKS set, which it would not pass" if has_hooks else f"of `{request.path}`"
            sentence = f"the batch API of `{self._run.provider}` takes no calls {what}"
            failure = Failure("unsupported", sentence, code="not_in_batches")
        except ProviderError as error:
            failure = error.failure
        self._run.settlement.settle(money, None)
        if self._run.job.spec.live_rest:
            self._run.queue.put_first(unit)
            return None
        outcome = Outcome(unit.call, failure, Timing())
        await self._run.journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt - 1)
        await self._run.source.release_fusions(unit)
        return None

    def _send_live(self, group: Iterable[PendingUnit], reserved: dict[Place, float]) -> None:
        for unit in group:
            self._run.settlement.settle(reserved[unit.unit[1:]], None)
            self._run.queue.put_first(unit)

    async def _refuse(
        self, row: EconomyBatchRow, group: Sequence[PendingUnit], reserved: dict[Place, float], failure: Failure
    ) -> None:
        """Handle a batch that the provider has not taken."""
        log.warning(
            "economy.refused",
            **self._run.labels,
            reason=failure.message,
        )
        if failure.kind in ("network", "timeout", "malformed"):  # nobody answered: it may have been made all the same
            found = None
            try:
                found = await self._run.api.find(row.token)
            except ProviderError as error:
                if retries.is_transient(error.failure):  # looked for again: sent a second time now, it could be paid twice
                    self._run.add(OpenBatch(row, reserved))
                    return
            if found is not None:
                await self._run.batches.set_vendor_id(row.token, found)
                self._run.add(OpenBatch(row._replace(vendor_id=found), reserved))
                return
        await self._run.batches.remove(row.token)
        for unit in group:
            self._run.settlement.settle(reserved[unit.unit[1:]], None)
            await self._ends.fail(unit, failure, is_refused=True)
