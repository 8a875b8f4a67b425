"""Scheduler of one job's units: which is sent next, to which model, and whether there is money for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from pydantic_core import to_json

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.budget import Budget
from fanout.jobs.job import Job, RequestBuilder, place_calls
from fanout.jobs.model_queues import AccountSlots, ModelQueue, PendingUnit, QueueKey
from fanout.store.jobs.records import InputChunk, Unit

DEFAULT_ACCOUNT_CONCURRENCY = 256
"""Calls at once of one account, where neither it nor the job has a limit of its own."""

ReadChunk = Callable[[int], Awaitable[InputChunk]]
RunUnit = Callable[[ModelQueue, PendingUnit, float], Awaitable[None]]
"""Runs a unit and settles the money that was set aside for it."""


class UnitScheduler:
    """The model queues of one job."""

    def __init__(
        self,
        job: Job,
        dispatcher: Dispatcher,
        builder: RequestBuilder,
        budget: Budget,
        *,
        read_chunk: ReadChunk,
        run_unit: RunUnit,
        on_budget_spent: Callable[[], None],
    ) -> None:
        self._job, self._dispatcher, self._builder, self._budget = job, dispatcher, builder, budget
        self._read_chunk, self._run_unit, self._on_budget_spent = read_chunk, run_unit, on_budget_spent
        self._stopped = False
        accounts: dict[tuple[str | None, str | None], AccountSlots] = {}
        self._queues: dict[QueueKey, ModelQueue] = {}
        for key in sorted({_queue_key(model) for model in job.fingerprint.values()}, key=str):
            account = accounts.setdefault(key[:2], AccountSlots(self._max_concurrency(key[0])))
            self._queues[key] = ModelQueue(account, self._feed(key))

    @property
    def running(self) -> int:
        """Calls in flight."""
        return sum(queue.running for queue in self._queues.values())

    @property
    def delayed(self) -> int:
        """Units that wait for their retry."""
        return sum(len(queue.delayed) for queue in self._queues.values())

    @property
    def closed_because(self) -> str | None:
        """Why some models or accounts take no more calls."""
        reasons = [queue.closed_because for queue in self._queues.values() if queue.closed_because]
        return "; ".join(dict.fromkeys(reasons)) or None

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Return a task for each queue, which ends when nothing is left of it or nothing more may be sent."""
        return [group.create_task(self._drive(queue)) for queue in self._queues.values()]

    def stop(self) -> None:
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """Let every queue look again whether it may send."""
        for queue in self._queues.values():
            queue.changed.set()

    async def close(self) -> None:
        """Close the readers of the input; else each would keep its chunk until it is collected."""
        for queue in self._queues.values():
            await queue.feed.aclose()

    async def _drive(self, queue: ModelQueue) -> None:
        async with asyncio.TaskGroup() as group:
            while not (self._stopped or queue.closed_because):
                queue.changed.clear()  # before looking: else a change in between would be missed, and the queue stand still
                if queue.may_send and (await self._send_next(queue, group) or not (queue.held or queue.is_done)):
                    continue
                if queue.is_done:
                    return
                await queue.wait_for_change()

    async def _send_next(self, queue: ModelQueue, group: asyncio.TaskGroup) -> bool:
        """Start the next unit of a queue; return whether there was one to start."""
        # The slot comes first, so that no unit is taken that then waits behind those of other models.
        await queue.account.slots.acquire()
        chosen = None
        try:
            chosen = await self._choose(queue)
        finally:
            if chosen is None:  # also after a failure: a slot that is lost here would be missing until the run ends
                queue.account.slots.release()
        if chosen:
            queue.running += 1
            group.create_task(self._run(queue, *chosen))
        return chosen is not None

    async def _run(self, queue: ModelQueue, unit: PendingUnit, reserved_usd: float) -> None:
        try:
            await self._run_unit(queue, unit, reserved_usd)
        finally:
            queue.running -= 1
            queue.account.slots.release()
            self.wake()  # all queues: the slot belongs to the account, and money that was released to the job

    async def _choose(self, queue: ModelQueue) -> tuple[PendingUnit, float] | None:
        """Return the next unit to send, and the money set aside for it."""
        unit = None if self._stopped or queue.closed_because else await queue.take()
        if unit is None:
            return None
        reserved = self._budget.reserve(unit.call)
        if reserved is not None:
            return unit, reserved
        if not self._budget.is_price_known(unit.call):
            queue.useless_because = f"what `{unit.call.target.label}` costs is not known, so no limit on it can be kept"
            return None
        # Calls in flight may cost less than was set aside for them; only without any is the budget really spent.
        queue.held = unit
        if not self.running:
            self._on_budget_spent()
        return None

    def _max_concurrency(self, provider: str | None) -> int:
        row = self._dispatcher.settings.providers.get(provider or "")
        own = row.row.limits.concurrency if row else None
        return min(filter(None, (own, self._job.spec.concurrency)), default=DEFAULT_ACCOUNT_CONCURRENCY)

    async def _feed(self, key: QueueKey) -> AsyncGenerator[PendingUnit]:
        """Yield the open units of one queue, in the order of the input."""
        # A unit whose model has no queue of its own goes into the first one: it must not be left out.
        after, takes_rest = -1, key == next(iter(self._queues))
        while (chunk := await self._read_chunk(after)).items:
            for item in chunk.items:
                after = item.item
                await asyncio.sleep(0)  # planning a whole chunk would hold up all others
                for place, call in place_calls(self._dispatcher.plan(self._builder.build_request(item.body))):
                    target = (call.target.provider, call.target.limit_group, call.target.model)
                    is_mine = target == key or (takes_rest and target not in self._queues)
                    if is_mine and (item.item, *place) not in chunk.closed:
                        yield self._make_pending(Unit(self._job.number, item.item, *place), call, chunk, item.body)

    def _make_pending(self, unit: Unit, call: Call, chunk: InputChunk, body: str) -> PendingUnit:
        place = (unit.item, unit.entry, unit.repeat)
        cache_key = None
        if self._job.spec.cache and not call.refusal:
            provider = self._dispatcher.settings.providers[call.target.provider or ""]
            cache_key = _make_cache_key(self._job.account_id, call, provider)
        closed = chunk.reopened.get(place, 0)
        pending = PendingUnit(unit, call, attempt=chunk.attempts.get(place, 0) + 1, closed=closed, cache_key=cache_key)
        if self._job.spec.scorers:  # else thousands of units that wait for a retry would keep their prompts
            pending.body = body
        return pending


def _queue_key(model: Mapping[str, str | None]) -> QueueKey:
    return model["provider"], model["limit_group"], model["upstream_model"]


def _make_cache_key(account_id: str, call: Call, provider: ProviderSettings) -> bytes:
    """Return the digest of a whole call: whose it is, where it goes, and what is sent."""
    query = call.query
    prompt = (query.messages, query.prompt, query.prompt_tokens)
    parameters = (dict(call.fitted.sent), dict(query.passthrough), query.sampling.n)
    target = (provider.adapter, provider.base_url, call.target.model)
    # With the account: nobody is served the answers of somebody else. With the sample: repeats stay independent answers.
    # Digests are stored, so the order must stay.
    whole = (account_id, *target, *prompt, *parameters, call.sample)
    return hashlib.sha256(to_json(whole, inf_nan_mode="constants")).digest()
