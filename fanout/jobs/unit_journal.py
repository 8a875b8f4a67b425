"""Journal of one run of a job: every attempt before it is sent, every end with its result, and the sums of both."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TypeVar

from fanout.core.errors import LeaseLostError, StoreClosedError, StoreError
from fanout.core.schema import Completion, Failure
from fanout.core.units import to_ms
from fanout.core.usage import WorkTotals
from fanout.dispatch.fusing import MemberAnswer
from fanout.jobs.answer_scorer import AnswerScorer
from fanout.jobs.claims import Claim
from fanout.jobs.job import Job, ResultGroup
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.stored_outcome import StoredOutcome, failure_to_json
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptFailed, AttemptStarted, JournalEntry, UnitEnded
from fanout.store.jobs.money import MoneyChange
from fanout.store.jobs.records import InputChunk
from fanout.store.usage import ANSWERED

PATIENCE_S = 30.0
"""How long a database that cannot be used is retried, while nothing new is sent."""
RETRY_INTERVAL_S = 0.5
RATE_WINDOW_S = 20.0
"""Time over which the recent throughput is averaged."""
Found = TypeVar("Found")


class UnitJournal:
    """Entries of a run about its units. Waits for a database that cannot be used just now."""

    def __init__(
        self,
        store: JobStore,
        job: Job,
        claim: Claim,
        counts: Mapping[ResultGroup, WorkTotals],
        scorer: AnswerScorer | None = None,
    ) -> None:
        self._store, self._job, self._scorer = store, job, scorer
        self._claim = claim
        """Its leases are shown with every entry: the store refuses those of a process that has lost them to another one."""
        self.counts = dict(counts)
        self._throughput: dict[str, Throughput] = {}
        self.holder: str | None = None
        """Of the allowance that the calls are paid from, where several processes share the job's money."""
        self.store_error: str | None = None
        """Why the database cannot be used just now."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Units a second, recently, by model."""
        now = time.monotonic()
        return {model: throughput.at(now) for model, throughput in self._throughput.items()}

    async def read_chunk(self, after: int, limit: int) -> InputChunk | None:
        """Return the next items in the job's order, and what has been done of them; none at the end, `None`: none for now.

        Args:
            after: the place of the last one that was read.
            limit: most of them.
        """
        while True:
            places = await self._claim.take_places(after, limit)
            if not places:
                return None if places is None else InputChunk([], frozenset(), {}, {})
            chunk = await self._read_places(places)
            if self._claim.note_read(places, chunk.items):
                return chunk

    async def _read_places(self, places: range) -> InputChunk:
        if self._scorer and self._scorer.watch:
            numbers = list(self._scorer.watch.order[places.start : places.stop])
            return await self.read_items(numbers, None) if numbers else InputChunk([], frozenset(), {}, {})
        return await self.wait_for_store(lambda: self._store.inputs.read_chunk(self._job.number, places.start - 1, len(places)))

    async def read_items(self, numbers: Sequence[int], entries: Sequence[int] | None) -> InputChunk:
        """Return the items of these numbers, and what has been done of them for some entries or for all."""
        chunk = await self.wait_for_store(lambda: self._store.inputs.read_items(self._job.number, numbers, entries))
        # The store reads the lowest numbers that fit together: of another order, only what follows without a gap is used.
        by_number = {item.item: item for item in chunk.items}
        found = [by_number[number] for number in takewhile(by_number.__contains__, numbers)]
        if not found and len(numbers) > 1:
            return await self.read_items(numbers[:1], entries)
        return replace(chunk, items=found)

    async def record_start(self, unit: PendingUnit) -> None:
        """Record an attempt before it is sent, because it may be charged even if this process dies."""
        chunk, epoch = self._claim.get_fence(unit.unit.item)
        money = self._change_money(unit.reserved_usd)
        await self._put(AttemptStarted(unit.unit, unit.attempt, epoch, time.time(), chunk=chunk, money=money))

    async def record_failure(self, unit: PendingUnit, failure: Failure) -> None:
        """Record a failed attempt of a unit that stays open."""
        chunk, epoch = self._claim.get_fence(unit.unit.item)
        event = (unit.unit, unit.attempt, epoch, time.time())
        money = self._change_money(-unit.reserved_usd)
        await self._put(AttemptFailed(*event, failure.kind, failure_to_json(failure), chunk=chunk, money=money))

    async def record_end(
        self, unit: PendingUnit, outcome: StoredOutcome, *, attempt: int, cached_from: str | None = None
    ) -> None:
        """Record the end of a unit, and add it to the sums. `cached_from` is the job whose answer was reused."""
        result, failure = outcome.result, outcome.failure
        totals = WorkTotals(attempts=attempt - unit.closed, total_ms=to_ms(outcome.timing.total_s))
        text = None
        if isinstance(result, Completion):
            totals.add_answer(result.usage, outcome.cost.usd if outcome.cost else None)
            text = "\0".join(choice.message.text for choice in result.choices)
        else:
            totals.add_failure()
        kind = failure.kind if failure else ANSWERED
        chunk, epoch = self._claim.get_fence(unit.unit.item)
        ended = UnitEnded(
            *(unit.unit, attempt, epoch, time.time(), outcome.label, kind, outcome.to_json(), totals),
            chunk=chunk,
            # A unit that was refused or reused had no attempt of its own, so there is none to write a failure for.
            failure=failure_to_json(failure) if failure and attempt >= unit.attempt else None,
            text=text,
            cache_key=None if failure else unit.cache_key,
            cached_from=cached_from,
            scores=await self._scorer.score(unit.body, outcome) if self._scorer and not failure else (),
            money=self._count_cost(unit, outcome, attempt),
        )
        await self._put(ended)
        if self._scorer and self._scorer.watch and not self._claim.is_shared:  # else it is read from the store
            self._scorer.watch.record(unit.unit, ended.scores, answered=failure is None)
        unit.has_ended = True
        # Counted only once it is on disk: what is shown as done must survive a crash.
        now = time.monotonic()
        self.counts.setdefault(ResultGroup(outcome.label, kind), WorkTotals()).add(totals)
        # It began a little earlier: the first unit alone would else make an infinite rate.
        self._throughput.setdefault(outcome.label, Throughput(now - 0.1)).add(now)

    def _count_cost(self, unit: PendingUnit, outcome: StoredOutcome, attempt: int) -> MoneyChange | None:
        if attempt < unit.attempt:  # no attempt of its own
            return None
        # As the budget counts it: all that was set aside, where an answer has no known cost.
        usd = outcome.cost.usd if outcome.cost else unit.reserved_usd
        return self._change_money(-unit.reserved_usd, 0.0 if outcome.failure else usd)

    def _change_money(self, open_usd: float, recorded_usd: float = 0.0) -> MoneyChange | None:
        return MoneyChange(self.holder, open_usd, recorded_usd) if self.holder else None

    async def read_members(self, unit: PendingUnit, entries: Sequence[int]) -> Sequence[MemberAnswer]:
        """Return the ends of the members of a fusion, in the order of the entries."""
        place = unit.unit
        records = await self.wait_for_store(
            lambda: self._store.results.read_records(place.job, place.item, entries, place.repeat)
        )
        stored = [(entry, StoredOutcome.from_json(records[entry])) for entry in entries]
        return [MemberAnswer(entry, None, found.label, found.result, found.cost) for entry, found in stored]

    async def find_cached_answer(self, key: bytes) -> tuple[StoredOutcome, str] | None:
        """Return an earlier answer to the same request, and the job that it came from."""
        found = await self.wait_for_store(lambda: self._store.results.find_cached_answer(key))
        return (StoredOutcome.from_json(found.record), found.cached_from or found.job) if found else None

    async def _put(self, entry: JournalEntry) -> None:
        try:
            await self._store.journal.put(entry)
            self.store_error = None
        except (LeaseLostError, StoreClosedError):
            raise
        except StoreError as error:
            await self._note_store_error(error)
            # The first try may have been committed although it failed here, and nothing must be counted twice.
            again = replace(entry, again=True)
            await self.wait_for_store(lambda: self._store.journal.put(again))

    async def wait_for_store(self, transaction: Callable[[], Awaitable[Found]]) -> Found:
        """Return the result of a transaction, retried while the database cannot be used, for `PATIENCE_S`."""
        began = time.monotonic()
        while True:
            try:
                found = await transaction()
            except (LeaseLostError, StoreClosedError):  # no wait would help: another has the job, or the process ends
                raise
            except StoreError as error:
                if time.monotonic() - began > PATIENCE_S:
                    raise
                await self._note_store_error(error)
            else:
                self.store_error = None
                return found

    async def _note_store_error(self, error: StoreError) -> None:
        """Log that the database cannot be used, and return when it is to be tried again."""
        if self.store_error is None:  # once, not twice a second
            log.error("job.write_failed", job=self._job.id, reason=str(error))
        self.store_error = str(error)
        await asyncio.sleep(RETRY_INTERVAL_S)


class Throughput:
    """Units a second, as an average that forgets what is long ago."""

    __slots__ = ("_at", "_began", "_sum")

    def __init__(self, now: float) -> None:
        self._sum, self._at, self._began = 0.0, now, now

    def add(self, now: float) -> None:
        """Count a unit that ended now."""
        self._sum = self._sum * math.exp((self._at - now) / RATE_WINDOW_S) + 1
        self._at = now

    def at(self, now: float) -> float:
        """Return the units a second at this moment."""
        # In the beginning less than the whole window has been seen.
        seen_s = RATE_WINDOW_S * (1 - math.exp((self._began - now) / RATE_WINDOW_S))
        return self._sum * math.exp((self._at - now) / RATE_WINDOW_S) / seen_s if seen_s > 0 else 0.0
