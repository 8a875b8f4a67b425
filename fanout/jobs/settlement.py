"""Money that is set aside for units, and ends of units that need no call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from fanout.core.schema import Call, Outcome
from fanout.core.usage import Cost
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.pricing import keep_plausible_figures
from fanout.jobs.allowance import Allowance
from fanout.jobs.budget import Budget
from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.jobs.unit_journal import UnitJournal
from fanout.store.jobs.job_store import JobStore

MAX_QUEUED_S = 600.0
"""Longest wait of a call for its account's limits; a call that would wait longer is delayed and sent again."""
USELESS_KINDS = frozenset({"quota", "auth", "not_configured"})
"""Failures that every further call would repeat: to the model, or for `quota` to the whole account."""
FREE = Cost(0.0, "cache")


class UnitSettlement:
    """The money of one run of a job, and the units that it need not send."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        job: Job,
        journal: UnitJournal,
        budget: Budget,
        *,
        stop: Callable[[str], None],
        pay_again: Callable[[], None],
        reconsider: Callable[[], Awaitable[None]],
    ) -> None:
        """Create it.

        Args:
            store: of the job.
            dispatcher: sends its calls.
            job: the job.
            journal: of the run.
            budget: of the run, with what was spent before.
            stop: stops the job, for a reason.
            pay_again: sends the units that wait for money.
            reconsider: looks whether the job is decided.
        """
        self._dispatcher, self._journal, self._budget = dispatcher, journal, budget
        self._stop, self.reconsider = stop, reconsider
        self._limit_usd = job.spec.max_cost_usd
        self._allowance: Allowance | None = None
        if store.is_shared and self._limit_usd is not None:
            self._allowance = Allowance(store.money, job, budget, pay_again, self._stop_at_limit)
            journal.holder = self._allowance.holder

    @asynccontextmanager
    async def run(self, group: asyncio.TaskGroup) -> AsyncGenerator[None]:
        """Share the job's money with other processes that run it, where there may be any."""
        if self._allowance is None:
            yield
            return
        await self._journal.wait_for_store(self._allowance.join)
        task = group.create_task(self._allowance.run())
        try:
            yield
        finally:
            task.cancel()
            await self._allowance.leave()

    def stop_without_money(self) -> None:
        """Stop the job: no call is in flight, and none can be paid. Where others share its money, only they tell."""
        gate = self._budget.gate
        if gate and gate.reason and not (self._allowance and self._allowance.is_short):
            self._stop(gate.reason)
        elif self._allowance is None:
            self._stop_at_limit(self._budget.spent_usd)

    def _stop_at_limit(self, spent_usd: float) -> None:
        self._stop(f"the next call could exceed the limit of {self._limit_usd:g} USD; {spent_usd:.6g} USD are spent")

    def reserve(self, queue: ModelQueue, unit: PendingUnit, ratio: float = 1.0) -> float | None:
        """Set money aside for a unit, and return it; `None`: there is not enough left, or its price is not known.

        With a `ratio` that is the part of its ordinary price. A queue whose calls have no known price is closed.
        """
        if self._budget.gate:
            unit.call = self._budget.gate.restrict(unit.call)
        reserved = self._budget.reserve(unit.call, ratio)
        unit.reserved_usd = reserved or 0.0
        if reserved is None and not self._budget.is_price_known(unit.call):
            label = unit.call.target.label
            queue.useless_because = f"the price of `{label}` is unknown, so `max_cost_usd` cannot be enforced"
        return reserved

    async def draw(self) -> bool:
        """Draw more money for a unit that could not be paid; return whether to try again."""
        return await self._allowance.look() if self._allowance else False

    async def adopt(self, reserved_usd: Sequence[float]) -> None:
        """Answer for units that an earlier run has left under way."""
        if self._allowance and any(reserved_usd):
            await self._allowance.adopt(sum(reserved_usd))
        self._budget.adopt(reserved_usd)

    async def release_orphans(self, reserved_usd: float) -> None:
        """Give back what an earlier run had set aside for units that were never sent."""
        if self._allowance and reserved_usd:
            await self._allowance.release_orphans(reserved_usd)

    def settle(self, reserved_usd: float, outcome: Outcome | None, started: Call | None = None) -> None:
        """Give the money back, and count what was spent; with a call whose start the key's limits have waited for."""
        if self._budget.gate:
            self._budget.gate.settle(started, reserved_usd, outcome)
        result, cost = (outcome.result, outcome.cost) if outcome else (None, None)
        self._budget.settle(reserved_usd, result, cost)

    async def end_unsent(self, unit: PendingUnit) -> bool:
        """Record the end of a unit that need not be sent; return whether it was such a one."""
        if unit.cache_key and await self.reuse_answer(unit, unit.cache_key):
            return True
        if unit.call.refusal is None and not unit.call.wants_no_tokens:
            return False
        await self.end_without_attempt(unit)
        return True

    async def reuse_answer(self, unit: PendingUnit, key: bytes) -> bool:
        """Record a stored answer to the same request as the unit's result; return whether the store has such an answer."""
        found = await self._journal.find_cached_answer(key)
        if found is None:
            return False
        answer, source = found
        target = unit.call.target
        # A version that bounded figures only where they were summed may have written it.
        completion = answer.completion and keep_plausible_figures(answer.completion)
        # The first answer was paid for; this use costs nothing.
        outcome = replace(answer, model=target.name, label=target.label, completion=completion, cost=FREE)
        await self._journal.record_end(unit, outcome, attempt=unit.attempt - 1, cached_from=source)
        return True

    async def end_without_attempt(self, unit: PendingUnit) -> Outcome:
        """Record the end of a unit that nothing is sent for, so that no start is recorded."""
        outcome = await self._dispatcher.attempt(unit.call, deadline_s=MAX_QUEUED_S)
        await self._journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt - 1)
        return outcome
