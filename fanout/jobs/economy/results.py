"""Results of economy batches: each batch is looked at, and what has ended is recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure
from fanout.jobs.economy.ends import UNFINISHED, UnitEnds
from fanout.jobs.economy.run import EconomyRun, OpenBatch
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.settlement import USELESS_KINDS
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.observability.logs import log
from fanout.providers.economy.api import EconomyResult
from fanout.store.jobs.records import Place

RECORDS_AT_ONCE = 64
MAX_UNREADABLE = 10
"""Looks at a batch that may end with an answer nobody can read, one after the other."""


class ResultCollector:
    """Reader of a model's batches."""

    def __init__(self, run: EconomyRun, ends: UnitEnds) -> None:
        self._run, self._ends = run, ends
        self._is_failing = False

    async def collect_results(self) -> None:
        """Look at each batch, and record what has ended."""
        for batch in list(self._run.open):
            try:
                if await self._collect(batch):
                    self._run.forget(batch)
                    await self._run.batches.remove(batch.row.token)
                self._is_failing, batch.unreadable = False, 0
            except ProviderError as error:
                if error.failure.kind == "not_found":  # nobody will ever have its results
                    await self._record_missing(batch)
                    self._run.forget(batch)
                    await self._run.batches.remove(batch.row.token)
                elif error.failure.kind in USELESS_KINDS:
                    self._run.queue.close(error.failure)
                    return
                elif self._is_unreadable(batch, error.failure):
                    await self._record_missing(batch, error.failure)
                    self._run.forget(batch)
                    await self._run.batches.remove(batch.row.token)
                elif not self._is_failing:  # once, not at every look
                    self._is_failing = True
                    log.warning(
                        "economy.poll_failed",
                        **self._run.labels,
                        reason=error.failure.message,
                    )

    def _is_unreadable(self, batch: OpenBatch, failure: Failure) -> bool:
        """Count a look that has failed; return whether no other one would be better."""
        batch.unreadable = batch.unreadable + 1 if failure.kind == "malformed" else 0
        return batch.unreadable >= MAX_UNREADABLE

    async def _collect(self, batch: OpenBatch) -> bool:
        """Record the results of a batch if it has ended; return whether it has."""
        vendor_id = batch.row.vendor_id or await self._find_lost(batch)
        if vendor_id is None:
            await self._record_missing(batch)
            return True
        state = await self._run.api.read_state(vendor_id)
        if not state.is_ended:
            return False
        log.info(
            "economy.ended",
            **self._run.labels,
            batch=vendor_id,
            state=state.word,
        )
        if state.failure is not None:
            await self._record_missing(batch, state.failure)
            return True
        expected = dict(batch.attempts)
        found: list[tuple[Place, EconomyResult]] = []
        async for result in self._run.api.read_results(state):
            place = _parse_id(result.id)
            if place is None or expected.pop(place, None) is None:
                continue  # of another attempt, or twice
            found.append((place, result))
            if len(found) >= RECORDS_AT_ONCE:
                await self._record(batch, found)
                found = []
        await self._record(batch, found)
        await self._record_missing(batch, among=list(expected))
        return True

    async def _find_lost(self, batch: OpenBatch) -> str | None:
        """Return the id of a batch whose creation nobody answered; `None`: it was never made, or cannot be told from others."""
        found = await self._run.api.find(batch.row.token)
        if found is not None:
            await self._run.batches.set_vendor_id(batch.row.token, found)
            batch.row = batch.row._replace(vendor_id=found)
        return found

    async def _record_missing(
        self, batch: OpenBatch, failure: Failure = UNFINISHED, among: Sequence[Place] | None = None
    ) -> None:
        """Record the units of a batch that it has no results of."""
        places = list(batch.attempts) if among is None else among
        for start in range(0, len(places), RECORDS_AT_ONCE):
            some = places[start : start + RECORDS_AT_ONCE]
            units = await self._run.source.plan_units(self._run.queue, some)
            for place in some:
                reserved = batch.reserved_usd.pop(place, 0.0)
                self._run.settlement.settle(reserved, None)
                if unit := units.get(place):
                    unit.attempt, unit.reserved_usd = batch.attempts[place], reserved
                    await self._ends.fail(unit, failure, is_refused=failure is not UNFINISHED)

    async def _record(self, batch: OpenBatch, found: Sequence[tuple[Place, EconomyResult]]) -> None:
        """Record results; those of units that have ended already were recorded by an earlier process."""
        if not found:
            return
        units = await self._run.source.plan_units(self._run.queue, [place for place, _ in found])
        ends: list[Awaitable[None]] = []
        for place, result in found:
            reserved = batch.reserved_usd.pop(place, 0.0)
            unit = units.get(place)
            if unit is None:
                self._run.settlement.settle(reserved, None)
                continue
            unit.attempt, unit.reserved_usd = batch.attempts[place], reserved
            ends.append(self._record_result(unit, batch, result))
        await asyncio.gather(*ends)
        await self._run.settlement.reconsider()

    async def _record_result(self, unit: PendingUnit, batch: OpenBatch, result: EconomyResult) -> None:
        reserved = unit.reserved_usd
        answer = UNFINISHED if result.status is None else await self._run.api.read(unit.call, result)
        if isinstance(answer, Failure):
            self._run.settlement.settle(reserved, None)
            await self._ends.fail(unit, answer, is_refused=False)
            return
        total_s = max(time.time() - batch.row.submitted, 0.0)
        outcome = self._ends.build_outcome(unit, answer, total_s)
        self._run.dispatcher.notify(outcome)
        await self._run.journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt)
        self._run.settlement.settle(reserved, outcome)
        await self._run.source.release_fusions(unit)


def _parse_id(request_id: str) -> Place | None:
    parts = request_id.split("-")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 18 for part in parts):
        return None
    item, entry, repeat, _ = map(int, parts)
    return item, entry, repeat
