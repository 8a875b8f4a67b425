"""Units of a job's items, planned as calls; an equal call of another job is found by its cache key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence

from pydantic_core import to_json

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.job import Job, RequestBuilder, place_calls
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.prefix_gate import find_prefix
from fanout.jobs.unit_feed import ReadItems
from fanout.store.jobs.records import InputChunk, InputItem, Place, Unit


class UnitPlanner:
    """Planner of one job's units."""

    def __init__(self, job: Job, dispatcher: Dispatcher, builder: RequestBuilder) -> None:
        self._job, self._dispatcher, self._builder = job, dispatcher, builder

    def plan_item(self, item: InputItem, chunk: InputChunk, entries: Sequence[int] | None) -> Iterator[PendingUnit]:
        """Yield the open units of an item; limited to the given entries, if any."""
        for within, call in place_calls(self._dispatcher.plan(self._builder.build_request(item.body), entries)):
            place = (item.item, *within)
            if place not in chunk.closed:
                yield PendingUnit(
                    Unit(self._job.number, *place),
                    call,
                    attempt=chunk.attempts.get(place, 0) + 1,
                    closed=chunk.reopened.get(place, 0),
                    row_bytes=len(item.body),
                    # The question of a fusion is not whole yet.
                    cache_key=None if call.fusion else self.make_cache_key(call),
                    prefix=None if call.fusion or self._job.spec.via == "batch" else find_prefix(call.query),
                    # Only for scorers: thousands of delayed units would otherwise keep their prompts in memory.
                    body=item.body if self._job.spec.scorers else "",
                )

    async def plan_places(
        self, places: Sequence[Place], entries: Sequence[int] | None, read_items: ReadItems
    ) -> dict[Place, PendingUnit]:
        """Return those of some units that have not ended, planned from their stored rows."""
        wanted, numbers = set(places), sorted({item for item, _, _ in places})
        found: dict[Place, PendingUnit] = {}
        while numbers and (chunk := await read_items(numbers, entries)).items:
            for item in chunk.items:
                await asyncio.sleep(0)
                units = self.plan_item(item, chunk, entries)
                found |= {unit.unit[1:]: unit for unit in units if unit.unit[1:] in wanted}
            numbers = numbers[len(chunk.items) :]
        return found

    def make_cache_key(self, call: Call) -> bytes | None:
        """Return the digest of a call by which equal ones are found; `None` if the job reuses no answers."""
        if not self._job.spec.cache or call.refusal:
            return None
        return _digest_call(self._job.account_id, call, self._dispatcher.find_upstreams(call).find_row(call))


def _digest_call(account_id: str, call: Call, provider: ProviderSettings) -> bytes:
    """Return the digest of a whole call: its account, its target, and the content sent."""
    query = call.query
    prompt = (query.messages, query.prompt, query.prompt_tokens)
    parameters = (dict(call.fitted.sent), dict(query.passthrough), query.sampling.n)
    target = (provider.adapter, provider.base_url, call.target.model)
    # The account keeps answers from other accounts; the sample keeps repeats independent.
    # Digests are stored, so the order of the fields must never change.
    whole = (account_id, *target, *prompt, *parameters, call.sample)
    return hashlib.sha256(to_json(whole, inf_nan_mode="constants")).digest()
