"""Ends of economy units: an answer, a failure, or another attempt."""

from __future__ import annotations

from fanout.core.schema import Completion, Failure, Outcome, Timing
from fanout.dispatch import retries
from fanout.dispatch.pricing import keep_plausible_figures
from fanout.jobs.economy.run import EconomyRun
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.settlement import USELESS_KINDS
from fanout.jobs.stored_outcome import StoredOutcome

UNFINISHED = Failure(
    "server", "the provider's batch ended before it came to this call", code="batch_unfinished", should_retry=True
)


class UnitEnds:
    """Recorder of the ends of a model's units."""

    def __init__(self, run: EconomyRun) -> None:
        self._run = run

    def build_outcome(self, unit: PendingUnit, answer: Completion | Failure, total_s: float) -> Outcome:
        cost = None
        if isinstance(answer, Completion):
            answer = keep_plausible_figures(answer)
            cost = self._run.dispatcher.compute_cost(unit.call, answer.usage, answer.model, in_batch=True)
        return Outcome(unit.call, answer, Timing(total_s=total_s, attempts=1, in_batch=True), cost)

    async def fail(self, unit: PendingUnit, failure: Failure, *, is_refused: bool) -> None:
        """Record a failed attempt: its unit is sent once more, in a batch or at once, or has ended."""
        if failure.kind in USELESS_KINDS:
            self._run.queue.close(failure)
            await self._run.journal.record_failure(unit, failure)  # it stays open: a resumed job sends it again
            return
        # What ended at the job's own wish stays open, too.
        is_stopped = self._run.source.is_stopped and failure is UNFINISHED
        may_repeat = failure is UNFINISHED or retries.is_transient(failure) or is_refused
        tries, most = unit.attempt - unit.closed, self._run.job.spec.attempts or self._run.retries.attempts
        if is_stopped or (may_repeat and self._run.job.spec.live_rest):
            await self._run.journal.record_failure(unit, failure)
            unit.attempt += 1
            if not is_stopped:
                self._run.queue.put_first(unit)
        elif may_repeat and not (is_refused and not retries.is_transient(failure)) and tries < most:
            await self._run.journal.record_failure(unit, failure)
            unit.attempt += 1
            self._run.again.append(unit)
        else:
            outcome = self.build_outcome(unit, failure, 0.0)
            self._run.dispatcher.notify(outcome)
            await self._run.journal.record_end(unit, StoredOutcome.from_outcome(outcome), attempt=unit.attempt)
            await self._run.source.release_fusions(unit)
