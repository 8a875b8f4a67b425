"""Worker of a job: sends its units, adapting concurrency to what each account accepts, and renews the job's lease.

A unit is sent at least once and recorded exactly once. However the process ends, a unit without a record is sent again; the
attempt that may have been charged stays recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

from fanout.config.providers_file import RetriesRow
from fanout.core.errors import LeaseLostError, StoreError
from fanout.core.schema import Completion, Failure, Outcome
from fanout.core.usage import WorkTotals, sum_known
from fanout.dispatch import retries
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.answer_scorer import AnswerScorer
from fanout.jobs.budget import Budget
from fanout.jobs.chunk_claims import ChunkClaims
from fanout.jobs.claims import Claim
from fanout.jobs.copies import list_copies
from fanout.jobs.deadline import Deadline
from fanout.jobs.deciding import Decider
from fanout.jobs.economy.run import EconomyRun
from fanout.jobs.economy.runner import run_in_batches
from fanout.jobs.job import Job, Progress, RequestBuilder, ResultGroup
from fanout.jobs.key_gate import KeyGate, wait_for_start
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.scheduler import UnitScheduler
from fanout.jobs.settlement import MAX_QUEUED_S, USELESS_KINDS, UnitSettlement
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.jobs.unit_journal import UnitJournal
from fanout.observability.logs import log
from fanout.store.jobs.chunks import describe_unsent
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ENDED_STATES, JobState

RUN_RENEWAL_INTERVAL_S = 3.0
"""Time between renewals of a job's lease, each of which also looks for a cancellation."""
MAX_ACCOUNT_WAITS = 100
"""Number of delays of one unit by its account's rate limit or open circuit, which use up no attempt of the unit."""
WITHDRAWN = Failure("cancelled", "not sent: the job was stopped", code="job_stopped")


class JobWorker:
    """One run of a job, or of its part that this process has taken."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        job: Job,
        claim: Claim,
        builder: RequestBuilder,
        counts: Mapping[ResultGroup, WorkTotals],
        scorer: AnswerScorer | None = None,
        gate: KeyGate | None = None,
    ) -> None:
        self.job = job
        self._store, self._dispatcher, self.claim = store, dispatcher, claim
        self._journal = UnitJournal(store, job, claim, counts, scorer)
        spent = sum_known(totals.cost_usd for totals in counts.values()) or 0.0
        self._gate = gate
        budget = Budget(dispatcher.compute_cost, job.spec.max_cost_usd, spent, gate=gate)
        self._settlement = UnitSettlement(
            *(store, dispatcher, job, self._journal, budget),
            stop=lambda reason: self.stop("stopped", reason),
            pay_again=lambda: self._scheduler.continue_to_limit(),
            reconsider=lambda: self._decider.reconsider(),
        )
        self._scheduler = UnitScheduler(
            *(job, dispatcher, builder, self._settlement, claim, self._journal),
            run_unit=self._run_unit,
            run_in_batches=self._run_in_batches,
        )
        if isinstance(claim, ChunkClaims):
            claim.on_change, claim.wait_for_store = self._scheduler.continue_to_limit, self._journal.wait_for_store
        watch = scorer.watch if scorer else None
        self._decider = Decider(store, job, watch, self._scheduler, self._finish_early, is_shared=claim.is_shared)
        if watch:
            self._scheduler.needs_all = True
            if isinstance(claim, ChunkClaims):
                claim.get_reach = lambda: self._decider.reach
            else:
                self._scheduler.set_limit(lambda: self._decider.reach)
            for entry in list_copies(job.fingerprint):
                self._scheduler.drop_entry(entry)  # nobody waits for it but a fusion, which may be dropped
        self._in_flight: set[int] = set()
        """`id()` of each call: two rows can contain equal calls."""
        self._final_state: tuple[JobState, str | None] | None = None

    @property
    def store_error(self) -> str | None:
        """Reason why the database cannot be used at the moment."""
        return self._journal.store_error

    @property
    def progress(self) -> Progress:
        """Progress at this moment; newer than the store's."""
        journal, scheduler = self._journal, self._scheduler
        return Progress(self.job, journal.counts, scheduler.running, scheduler.delayed, journal.rates)

    def stop(self, state: JobState, reason: str | None) -> None:
        """Stop sending units; calls in flight are awaited.

        With `queued`, only this process leaves the job. With any other state all that share it do, and the last one ends it.
        The first reason is kept, but a cancellation replaces `queued`, which would leave the job to another process.
        """
        if self._final_state is None or (state == "cancelled" and self._final_state[0] == "queued"):
            self._final_state = (state, reason)
            self.claim.stop(state, reason)
        # Calls that only wait for limits have cost nothing; waiting for them could take minutes.
        self._dispatcher.cancel(lambda call: id(call) in self._in_flight, WITHDRAWN, waiting_only=True)
        self._scheduler.stop()

    def close(self) -> None:
        """Let go of what the run kept together with other processes, once it has ended."""
        self._scheduler.close()

    async def run(self) -> tuple[JobState, str | None]:
        """Run until every unit has ended or `stop` is called; return the job's final state and the reason.

        Raises:
            StoreError: the database could not be used for `PATIENCE_S`. Units without a record will be sent again.
            LeaseLostError: another process has taken the job.
        """
        await self._decider.reconsider()  # a resumed job may have been decided just before it was cut off
        if self._final_state:
            return self._final_state
        deadline = Deadline(
            partial(self._journal.wait_for_store, self._store.read_clock),
            self.job.spec.deadline,
            lambda: self.stop("expired", "its deadline has passed"),
        )
        try:
            async with asyncio.TaskGroup() as group, deadline.run(group), self._settlement.run(group), self._decider.run(group):
                renewal = group.create_task(self._keep_lease())
                await asyncio.wait(self._scheduler.start(group))
                renewal.cancel()  # else the group would wait for it for ever
        except BaseExceptionGroup as error:  # callers catch StoreError and LeaseLostError, not groups of them
            raise _first_cause(error) from error
        if self._final_state:
            return self._final_state
        if self.claim.is_shared and not self._scheduler.takes_nothing:
            return "queued", None  # whoever ends the last chunk ends the job
        if reason := self._scheduler.closed_because:
            return "stopped", reason
        if left := self.progress.remaining:
            return "stopped", describe_unsent(left)
        return "done", None

    def _finish_early(self, sentence: str) -> None:
        self.stop("done", sentence)

    async def _run_in_batches(self, queue: ModelQueue) -> None:
        api = self._dispatcher.upstreams.find_economy_api(queue.key[0] or "")
        assert api is not None, "a queue goes in batches only where its provider has some"
        await run_in_batches(
            EconomyRun(
                *(self.job, self.claim.get_fence(0).epoch, queue, self._dispatcher, api, self._store.economy_batches),
                *(self._journal, self._scheduler, self._settlement),
                should_cancel=lambda: self._final_state is not None and self._final_state[0] in ("cancelled", "expired"),
            )
        )

    async def _run_unit(self, queue: ModelQueue, unit: PendingUnit, reserved_usd: float) -> None:
        outcome: Outcome | None = None
        if not self.claim.begin(unit.unit):  # given back, while it was chosen
            self._settlement.settle(reserved_usd, None, unit.call)
            return
        self._in_flight.add(id(unit.call))
        try:
            if not (unit.cache_key and await self._settlement.reuse_answer(unit, unit.cache_key)):
                outcome = await self._attempt(queue, unit)
        finally:
            # Also when the journal fails: money that stays set aside would stop the job long before its limit.
            self._in_flight.discard(id(unit.call))
            unit.call.scope.release_answer(unit.call.index)
            self._settlement.settle(reserved_usd, outcome, unit.call)
            self.claim.leave(unit.unit)
        await self.claim.end(unit)
        await self._decider.reconsider()

    async def _attempt(self, queue: ModelQueue, unit: PendingUnit) -> Outcome | None:
        if self._gate and not unit.call.refusal:
            self._in_flight.discard(id(unit.call))
            unit.call = await wait_for_start(
                self._gate, unit.call, lambda: bool(self._final_state), self._settlement.stop_without_money
            )
            self._in_flight.add(id(unit.call))
            if self._final_state:  # nothing was recorded of it, so it is sent when the job is resumed
                return None
        if unit.call.refusal:  # nothing is sent, so no start is recorded
            return await self._settlement.end_without_attempt(unit)
        await self._journal.record_start(unit)
        if self._final_state:  # the job was stopped while the start was written
            await self._journal.record_failure(unit, WITHDRAWN)
            return None
        row = self._dispatcher.find_upstreams(unit.call).find_row(unit.call).row
        began = time.monotonic()
        deadline_s, stream = MAX_QUEUED_S + row.timeout_s, self.job.spec.stream
        outcome = await self._dispatcher.attempt(unit.call, deadline_s=deadline_s, stream=stream)
        now = time.monotonic()
        unit.tries += 1
        _adapt_concurrency(queue, outcome, now - (outcome.timing.call_s or now - began), now)
        await self._record_outcome(queue, unit, outcome, row.retries, now)
        return outcome

    async def _record_outcome(
        self, queue: ModelQueue, unit: PendingUnit, outcome: Outcome, policy: RetriesRow, now: float
    ) -> None:
        failure = outcome.result
        if isinstance(failure, Completion):
            await self._journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt)
            return
        if failure.kind in USELESS_KINDS:
            queue.close(failure)
        attempts, is_unavailable = self.job.spec.attempts, self._dispatcher.upstreams.is_unavailable(unit.call)
        if delay_s := _count_and_delay_s(unit, failure, policy, attempts, is_unavailable=is_unavailable):
            await self._journal.record_failure(unit, failure)
            unit.attempt += 1
            queue.delay(unit, now + delay_s)
        elif failure.kind in USELESS_KINDS or failure.kind == "cancelled":
            await self._journal.record_failure(unit, failure)  # the unit stays open: a resumed job sends it again
        else:
            await self._journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt)

    async def _keep_lease(self) -> None:
        """Renew the leases; stop if another process has cancelled the job, or wants it to end."""
        while True:
            try:
                standing = await self.claim.renew(self.progress.rate, self._scheduler.delayed)
            except StoreError as error:  # the lease outlasts several renewals; the journal decides when to give up
                log.warning("job.renew_failed", job=self.job.id, reason=str(error))
            else:
                if standing is None:  # another process sends these units now: each further call would be charged twice
                    raise LeaseLostError
                if standing.state in ENDED_STATES:
                    self.stop(*standing)
            await self.claim.wait(RUN_RENEWAL_INTERVAL_S)


def _count_and_delay_s(
    unit: PendingUnit, failure: Failure, policy: RetriesRow, attempts: int | None, *, is_unavailable: bool
) -> float | None:
    """Count the failure; return the delay before the retry, which is never 0, or `None` if the failure is final."""
    if not (retries.is_transient(failure) or failure.code in retries.HELD_CODES):
        return None
    # Caused by the account, not by the unit: it uses up no attempt.
    if failure.kind == "rate_limit" or is_unavailable:
        unit.tries -= 1
        unit.waits += 1
        number, most = unit.waits, MAX_ACCOUNT_WAITS
    else:
        number, most = unit.tries, attempts or policy.attempts
    return max(retries.compute_delay_s(failure, number, policy), 0.01) if number < most else None


def _adapt_concurrency(queue: ModelQueue, outcome: Outcome, started: float, now: float) -> None:
    timing, concurrency = outcome.timing, queue.concurrency
    if isinstance(outcome.result, Completion):
        concurrency.record_answer(started, now, filled=timing.queued_s < 1 and queue.running >= concurrency.limit)
    elif outcome.result.kind == "rate_limit" and timing.attempts > 0:  # refused by the account, not by our own limits
        concurrency.record_refusal(started, now)


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error inside nested exception groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
