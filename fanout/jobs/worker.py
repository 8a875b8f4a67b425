"""Runs a job: each account at the pace that it bears, every attempt written down before it is sent, every end with its result.

A unit is asked at least once and recorded exactly once. Whatever ends the process, a unit without a record is asked again;
the attempt that may have been paid for stays written.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, TypeVar

from pydantic_core import to_json

from fanout.core.errors import LeaseLostError, StoreError
from fanout.core.schema import Call, Completion, Failure, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import Cost, WorkTotals, plausible_usage, plausible_usd, sum_known
from fanout.dispatch import retries
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.budget import Budget
from fanout.jobs.job import Job, Progress, RequestBuilder, ResultGroup, place_calls
from fanout.jobs.model_queues import AccountSlots, ModelQueue, PendingUnit, QueueKey, Throughput
from fanout.jobs.stored_outcome import StoredOutcome, failure_to_json
from fanout.limits.queue import Priority
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptFailed, AttemptStarted, JournalEntry, UnitEnded
from fanout.store.jobs.records import JobState, Unit
from fanout.store.usage.sums import ANSWERED

BEAT_S = 3.0
"""How often a job's process says that it lives, and looks whether the job is to end."""
PATIENCE_S = 30.0
"""How long a database that cannot be written is tried again, while nothing new is sent."""
TRY_AGAIN_S = 0.5
WAIT_S = 600.0
"""How long a call may wait for its account's limits; one that would wait longer is put back with its time."""
MOST_AT_ONCE = 256
"""Calls of one account, where neither it nor the job has a limit of its own."""
RATE_TRIES = 100
"""How often a unit is put back because its account takes no more for now; that is no failure of the unit."""
USELESS_KINDS = frozenset({"quota", "auth", "not_configured"})
"""Failures that every further call would meet, too: of that model, or with `quota` of the account."""
FREE = Cost(0.0, "cache")
WITHDRAWN = Failure("cancelled", "not sent: the job was to end first", code="job_stopped")
Found = TypeVar("Found")


class JobWorker:
    """One run of a job by the process that has its lease."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        job: Job,
        epoch: int,
        builder: RequestBuilder,
        counts: Mapping[ResultGroup, WorkTotals],
    ) -> None:
        self._store, self._dispatcher, self._builder = store, dispatcher, builder
        self.job, self._epoch = job, epoch
        self._counts = dict(counts)
        self._rates: dict[str, Throughput] = {}
        self._lanes: dict[QueueKey, ModelQueue] = {}
        spent = sum_known(totals.cost_usd for totals in counts.values()) or 0.0
        self._budget = Budget(dispatcher.compute_cost, job.spec.max_cost_usd, spent)
        self._under_way: set[int] = set()
        """`id` of the calls."""
        self._ending: tuple[JobState, str | None] | None = None
        self.trouble: str | None = None
        """Why the database cannot be written just now."""

    def progress(self) -> Progress:
        """How far it is, at this moment."""
        now = time.monotonic()
        return Progress(
            job=self.job,
            counts=self._counts,
            running=sum(lane.running for lane in self._lanes.values()),
            waiting=sum(len(lane.later) for lane in self._lanes.values()),
            rates={model: rate.at(now) for model, rate in self._rates.items()},
        )

    def stop(self, state: JobState, reason: str | None) -> None:
        """Sends nothing more; what was sent is waited for. The first reason stands, but a job that is cancelled is not left."""
        if self._ending is None or (state == "cancelled" and self._ending[0] == "queued"):
            self._ending = (state, reason)
        self._dispatcher.cancel_waiting(lambda call: id(call) in self._under_way, WITHDRAWN)
        self._wake()

    async def run(self) -> tuple[JobState, str | None]:
        """Runs until every unit has ended or it is told to stop; in which state that leaves the job, and why.

        Raises:
            StoreError: the database could not be written for `PATIENCE_S`. What was not written will be asked again.
            LeaseLostError: another process has taken the job over.
        """
        accounts: dict[tuple[str | None, str | None], AccountSlots] = {}
        for name in sorted({_lane(row) for row in self.job.fingerprint.values()}, key=str):
            account = accounts.setdefault(name[:2], AccountSlots(self._most_at_once(name[0])))
            self._lanes[name] = ModelQueue(account, self._feed(name))
        deadline = self.job.spec.deadline
        loop = asyncio.get_running_loop()
        timer = deadline and loop.call_later(max(deadline - time.time(), 0), self.stop, "expired", "its deadline has passed")
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._beat())
                lanes = [group.create_task(self._drive(lane)) for lane in self._lanes.values()]
                await asyncio.wait(lanes)
                beat.cancel()
        except BaseExceptionGroup as broken:
            raise _first(broken) from broken
        finally:
            if timer:
                timer.cancel()
            for lane in self._lanes.values():
                await lane.feed.aclose()
        over = [lane.over for lane in self._lanes.values() if lane.over]
        if self._ending is None and over:
            return "stopped", "; ".join(dict.fromkeys(over))
        if self._ending is None and (left := self.progress().remaining):
            return "stopped", f"{left} units were not asked: the models stand for fewer calls than when the job was made"
        return self._ending or ("done", None)

    def _most_at_once(self, provider: str | None) -> int:
        row = self._dispatcher.settings.providers.get(provider or "")
        own = row.row.limits.concurrency if row else None
        return min(filter(None, (own, self.job.spec.concurrency)), default=MOST_AT_ONCE)

    # What is to be asked

    async def _feed(self, name: QueueKey) -> AsyncGenerator[PendingUnit]:
        """The units of one lane that have not ended, in the order of the input.

        The first lane takes those of models that nobody has thought of, too: every unit is asked.
        """
        after, fresh, rest = -1, True, name == next(iter(self._lanes), name)
        while fresh:
            chunk = await self._patiently(lambda after=after: self._store.inputs.read_chunk(self.job.number, after))  # type: ignore[misc]
            fresh = bool(chunk.items)
            for item in chunk.items:
                after = item.item
                await asyncio.sleep(0)  # planning a whole chunk would hold up all others
                for (entry, number), call in place_calls(self._dispatcher.plan(self._builder.build_request(item.body))):
                    target, place = call.target, (item.item, entry, number)
                    its = (target.provider, target.limit_group, target.model)
                    if place not in chunk.closed and (its == name or (rest and its not in self._lanes)):
                        unit, attempt = Unit(self.job.number, *place), chunk.attempts.get(place, 0) + 1
                        yield PendingUnit(unit, call, attempt, chunk.reopened.get(place, 0), cache_key=self._cache_key(call))

    async def _drive(self, lane: ModelQueue) -> None:
        """Sends what one lane bears, until nothing is left or nothing more may be sent."""
        async with asyncio.TaskGroup() as group:
            while not (self._ending or lane.over):
                lane.changed.clear()
                if lane.ready:
                    await lane.account.places.acquire()
                    sent = None
                    try:
                        sent = await self._chosen(lane)
                    finally:
                        if sent is None:
                            lane.account.places.release()
                    if sent:
                        lane.running += 1
                        group.create_task(self._unit(lane, *sent))
                    if sent or not (lane.held or lane.done):
                        continue
                if lane.done:
                    return
                await lane.change()

    async def _chosen(self, lane: ModelQueue) -> tuple[PendingUnit, float] | None:
        """What is to be sent now, and the money set aside for it."""
        work = None if self._ending or lane.over else await lane.next()
        if work is None:
            return None
        reserved = self._budget.reserve(work.call)
        if reserved is not None:
            return work, reserved
        if not self._budget.is_price_known(work.call):
            lane.useless = f"what `{work.call.target.label}` costs is not known, so no limit on it can be kept"
            return None
        lane.held = work
        if not any(other.running for other in self._lanes.values()):
            self.stop("stopped", self._spent())
        return None

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.changed.set()

    def _spent(self) -> str:
        most, spent = self.job.spec.max_cost_usd, self._budget.spent_usd
        return f"the next call could cost more than is left of {most:g} USD; {spent:.6g} USD are spent"

    # One unit

    async def _unit(self, lane: ModelQueue, work: PendingUnit, reserved_usd: float) -> None:
        outcome: Outcome | None = None
        self._under_way.add(id(work.call))
        try:
            if not (work.cache_key and await self._from_cache(work)):
                outcome = await self._attempt(lane, work)
        finally:
            lane.running -= 1
            lane.account.places.release()
            self._under_way.discard(id(work.call))
            result, cost = (outcome.result, outcome.cost) if outcome else (None, None)
            self._budget.settle(reserved_usd, result, cost)
            self._wake()

    async def _attempt(self, lane: ModelQueue, work: PendingUnit) -> Outcome | None:
        if work.call.refusal:  # nothing is sent, so nothing is written before
            outcome = await self._dispatcher.attempt(work.call, deadline_s=WAIT_S)
            await self._ended(work, outcome, attempt=work.attempt - 1)
            return outcome
        await self._put(AttemptStarted(work.unit, work.attempt, self._epoch, time.time()))
        if self._ending:
            await self._put(self._failed(work, WITHDRAWN))
            return None
        row = self._dispatcher.settings.providers[work.call.target.provider or ""].row
        began = time.monotonic()
        outcome = await self._dispatcher.attempt(work.call, deadline_s=WAIT_S + row.timeout_s, priority=Priority.BATCH)
        now = time.monotonic()
        result, sent = outcome.result, outcome.timing.attempts > 0
        started = now - (outcome.timing.call_s or now - began)
        work.tries += 1
        if isinstance(result, Completion):
            lane.pace.record_answer(started, now, filled=outcome.timing.queued_s < 1 and lane.running >= lane.pace.limit)
            await self._ended(work, outcome, attempt=work.attempt)
            return outcome
        if result.kind == "rate_limit" and sent:
            lane.pace.record_refusal(started, now)
        if result.kind in USELESS_KINDS:
            lane.end(result)
        if delay_s := self._again(work, result, row.retries):
            await self._put(self._failed(work, result))
            work.attempt += 1
            lane.put_back(work, now + delay_s)
        elif result.kind in USELESS_KINDS or result.kind == "cancelled":
            await self._put(self._failed(work, result))  # the unit stays open
        else:
            await self._ended(work, outcome, attempt=work.attempt)
        return outcome

    def _again(self, work: PendingUnit, failure: Failure, row: Any) -> float | None:
        """After how many seconds a failed unit is tried again; `None`: not at all."""
        if not (retries.is_transient(failure) or failure.code == "queue_too_long"):
            return None
        if failure.kind == "rate_limit":
            work.tries -= 1
            work.waits += 1
            return max(retries.compute_delay_s(failure, work.waits, row), 0.01) if work.waits < RATE_TRIES else None
        if work.tries >= (self.job.spec.attempts or row.attempts):
            return None
        return max(retries.compute_delay_s(failure, work.tries, row), 0.01)

    async def _ended(self, work: PendingUnit, outcome: Outcome, *, attempt: int, cached_from: str | None = None) -> None:
        await self._close(work, StoredOutcome.from_outcome(outcome), attempt=attempt, cached_from=cached_from)

    async def _close(self, work: PendingUnit, record: StoredOutcome, *, attempt: int, cached_from: str | None = None) -> None:
        """Writes a unit's end."""
        result, failed = record.result, record.failure
        text = "\0".join(choice.message.text for choice in result.choices) if isinstance(result, Completion) else None
        totals = WorkTotals(attempts=attempt - work.closed, total_ms=to_ms(record.timing.total_s))
        if isinstance(result, Completion):
            totals.add_answer(plausible_usage(result.usage), plausible_usd(record.cost))
        else:
            totals.add_failure()
        word = failed.kind if failed else ANSWERED
        ended = UnitEnded(
            *(work.unit, attempt, self._epoch, time.time(), record.label, word, record.to_json(), totals),
            failure=failure_to_json(failed) if failed and attempt >= work.attempt else None,
            text=text,
            cache_key=None if failed else work.cache_key,
            cached_from=cached_from,
        )
        await self._put(ended)
        now = time.monotonic()
        self._counts.setdefault(ResultGroup(record.label, word), WorkTotals()).add(totals)
        self._rates.setdefault(record.label, Throughput(now - 0.1)).add(now)

    def _failed(self, work: PendingUnit, failure: Failure) -> AttemptFailed:
        return AttemptFailed(work.unit, work.attempt, self._epoch, time.time(), failure.kind, failure_to_json(failure))

    async def _put(self, entry: JournalEntry) -> None:
        entries = chain([entry], repeat(replace(entry, again=True) if isinstance(entry, UnitEnded) else entry))
        await self._patiently(lambda: self._store.journal.put(next(entries)))

    async def _patiently(self, transaction: Callable[[], Awaitable[Found]]) -> Found:
        """Waits for a database that cannot be used now."""
        began = time.monotonic()
        while True:
            try:
                found = await transaction()
            except LeaseLostError:
                raise
            except StoreError as error:
                if time.monotonic() - began > PATIENCE_S:
                    raise
                if self.trouble is None:
                    log.error("a job cannot be written; it waits", job=self.job.id, reason=str(error))
                self.trouble = str(error)
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                self.trouble = None
                return found

    # Answers that were given before

    def _cache_key(self, call: Call) -> bytes | None:
        """The question whole: whose, whom, what, and the number of the repeat, so that repeats stay independent."""
        if not self.job.spec.cache or call.refusal:
            return None
        row = self._dispatcher.settings.providers[call.target.provider or ""]
        query = call.query
        asked = (row.adapter, row.base_url, call.target.model, query.messages, query.prompt, query.prompt_tokens)
        whole = (self.job.account_id, *asked, dict(call.fitted.sent), dict(query.passthrough), query.sampling.n, call.sample)
        return hashlib.sha256(to_json(whole, inf_nan_mode="constants")).digest()

    async def _from_cache(self, work: PendingUnit) -> bool:
        """Closes a unit with an answer to the same question, where the store has one."""
        assert work.cache_key
        key = work.cache_key
        found = await self._patiently(lambda: self._store.results.find_cached(key))
        if found is None:
            return False
        target = work.call.target
        # It has cost nothing this time, and that is known.
        record = replace(StoredOutcome.from_json(found.record), model=target.name, label=target.label, cost=FREE)
        await self._close(work, record, attempt=work.attempt - 1, cached_from=found.cached_from or found.job)
        return True

    async def _beat(self) -> None:
        """Keeps the lease, and looks whether the job is to end."""
        while True:
            try:
                rate = self.progress().rate
                state = await self._store.leases.renew(self.job.number, self._epoch, rate)
            except StoreError as error:
                log.warning("a job's lease cannot be renewed", job=self.job.id, reason=str(error))
            else:
                if state is None:
                    raise LeaseLostError
                if state in ("cancelling", "cancelled"):
                    self.stop("cancelled", "it was cancelled")
            await asyncio.sleep(BEAT_S)


def _first(broken: BaseExceptionGroup[BaseException]) -> BaseException:
    """What broke first, out of the groups around it."""
    error: BaseException = broken
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _lane(meant: Mapping[str, Any]) -> QueueKey:
    """Where a model of the job is asked."""
    return meant["provider"], meant["limit_group"], meant["upstream_model"]
