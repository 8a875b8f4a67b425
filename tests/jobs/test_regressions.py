"""What a reading with fresh eyes has found: each of these once lost a unit, a call, a figure or the whole process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import LeaseLostError, RequestError, StoreError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Query, Target
from fanout.core.usage import Cost, WorkTotals
from fanout.dispatch.plan import Request
from fanout.jobs import model_queues
from fanout.jobs.budget import Budget, max_input_tokens
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import JobSpec, RequestBuilder, ResultGroup
from fanout.jobs.manager import JobManager
from fanout.jobs.row_request import make_row_request_builder
from fanout.jobs.worker import JobWorker
from fanout.store.engine.group_commit import GroupCommit
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptStarted, UnitEnded
from fanout.store.jobs.leases import Leases
from fanout.store.jobs.records import InputItem, NewJobRow, Unit
from fanout.store.usage.sums import ANSWERED
from tests.support.job_manager import keeping, rows
from tests.support.upstreams import Upstream


async def test_a_model_that_counts_with_another_group_by_now_is_asked_all_the_same(upstream: Upstream, tmp_path: Path) -> None:
    """Groups may change while a job waits, so its units' account is the one of now, not the one that it was made with."""
    model = {"provider": "up", "id": "ok", "kind": "chat"}
    async with keeping(upstream.url, tmp_path, more={"models": {"fast": model}}) as kept:
        job = await kept.create(5, "fast")
    async with keeping(upstream.url, tmp_path, more={"models": {"fast": {**model, "limit_group": "quick"}}}) as kept:
        job = await kept.manager.run(job.id)

        assert len(await kept.results(job)) == 5

    assert job.state == "done"
    assert len(upstream.requests) == 5


async def test_parameters_that_json_writes_otherwise_have_not_changed(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/ok", parameters={"stop": ["a", "b"], "logit_bias": {"50256": -100}, "temperature": 1})
        assert (await kept.manager.run(job.id)).state == "done"


async def test_what_is_stopped_sends_nothing_more(upstream: Upstream, tmp_path: Path) -> None:
    """A call that waits for its account's limits has not been sent, so it never is, and nobody waits for it."""
    async with keeping(upstream.url, tmp_path, limits={"requests_per_minute": 60, "burst": 1}) as kept:
        job = await kept.create(20, "up/ok")
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        await upstream.arrived(1)
        while seen[0].progress.running < 3:
            await asyncio.sleep(0.01)
        await kept.manager.cancel(job.id)
        sent = len(upstream.requests)
        job = await running
        assert (job.state, len(upstream.requests)) == ("cancelled", sent)

        await kept.manager.resume(job.id)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.arrived(sent + 1)
        await kept.manager.cancel(job.id)
        await running


class InterruptedLeases(Leases):
    """Leases for which something happens just when a job has been taken."""

    manager: JobManager

    async def acquire(self, number: int, owner: str, *, dead_owners: Iterable[str] = ()) -> int | None:
        epoch = await super().acquire(number, owner, dead_owners=dead_owners)
        job = next(job for job in await self.manager.list_jobs(limit=10) if job.number == number)
        if job.state == "queued":
            await self.manager.cancel(job.id)
        return epoch


async def test_a_cancel_while_a_job_is_being_taken_up_is_not_lost(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        store = JobStore(kept.store.database)
        store.leases = leases = InterruptedLeases(kept.store.database)
        manager = leases.manager = JobManager(store, kept.dispatcher)
        async with store.journal.run():
            job = await kept.create(5, "up/ok")
            job = await manager.run(job.id)

    assert job.state == "cancelled"
    assert upstream.requests == []


async def test_a_job_that_runs_is_not_run_again_by_the_same_process(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(10, "up/sleep-0.1")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.arrived(1)
        with pytest.raises(LeaseLostError):
            await kept.manager.run(job.id)
        assert (await running).state == "done"

    assert len(upstream.requests) == 10


async def test_a_job_that_was_cancelled_while_its_process_was_away_sends_nothing_more(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Its process had not been heard of for longer than its lease; then it comes back."""
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(400, "up/sleep-0.05", concurrency=2)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.arrived(2)
        await kept.jobs.update(job.number, {"lease_until": 0.0})
        await kept.manager.cancel(job.id)
        job = await running

    assert job.state == "cancelled"
    assert len(upstream.requests) < 300


async def test_a_figure_that_no_database_holds_stops_nobody(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(3, f"up/tokens-{10**30}", "up/ok")
        async with asyncio.timeout(30):
            job = await kept.manager.run(job.id)
        counts = (await kept.manager.read_progress(job.id)).counts

    assert job.state == "done"
    tally = counts[ResultGroup(f"up/tokens-{10**30}", ANSWERED)]
    assert (tally.calls, tally.output_tokens, tally.unknown_usage) == (3, None, 3)


async def test_a_record_that_cannot_be_written_does_not_end_the_writing(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/ok")
        epoch = await kept.jobs.leases.acquire(job.number, "me")
        assert epoch
        unit = Unit(job.number, 0, 0, 0)
        async with asyncio.timeout(30):
            with pytest.raises(StoreError):
                await kept.jobs.journal.put(UnitEnded(unit, 1, epoch, 0.0, "up/ok", ANSWERED, "{}", WorkTotals(1, 10**30)))
            await kept.jobs.journal.put(UnitEnded(unit, 1, epoch, 0.0, "up/ok", ANSWERED, "{}", WorkTotals(1, 1)))


async def test_what_is_being_written_at_the_end_is_written(upstream: Upstream, tmp_path: Path) -> None:
    """Whoever put it may have left."""
    written: list[int] = []

    async def slowly(_: Any, records: Any) -> list[None]:
        await asyncio.sleep(0.2)
        written.extend(records)
        return [None] * len(records)

    async with keeping(upstream.url, tmp_path) as kept:
        journal: GroupCommit[int] = GroupCommit(kept.store.database, slowly)
        async with journal.run():
            putting = asyncio.create_task(journal.put(1))
            await asyncio.sleep(0.1)
            putting.cancel()

    assert written == [1]


@pytest.mark.parametrize("record", ["started", "ended"])
async def test_a_record_that_is_written_once_more_is_counted_once(upstream: Upstream, tmp_path: Path, record: str) -> None:
    """Where a connection breaks while a transaction is committed, nobody knows whether it was: it is written again."""
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/ok")
        epoch = await kept.jobs.leases.acquire(job.number, "me") or 0
        unit = Unit(job.number, 0, 0, 0)
        put = (
            AttemptStarted(unit, 1, epoch, 0.0)
            if record == "started"
            else UnitEnded(unit, 1, epoch, 0.0, "up/ok", ANSWERED, "{}", WorkTotals(1))
        )
        await kept.jobs.journal.put(put)
        await kept.jobs.journal.put(replace(put, again=True) if isinstance(put, UnitEnded) else put)

        assert sum(sums.calls for sums in (await kept.jobs.results.read_counts(job.number)).values()) == (record == "ended")


async def test_what_waits_to_be_tried_again_is_bounded(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_queues, "MAX_DELAYED_UNITS", 8)
    most = 0
    async with keeping(upstream.url, tmp_path, retries={"attempts": 2, "max_delay_s": 0.2}) as kept:
        job = await kept.create(100, "up/503-s-0.2", concurrency=4)
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        while not running.done():
            most = max(most, seen[0].progress.waiting) if seen else 0
            await asyncio.sleep(0.005)
        job = await running

    assert job.state == "done"
    assert len(upstream.requests) == 200
    assert 0 < most <= 8 + 4


async def test_the_attempts_before_a_kill_are_counted(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/fail-2-then-ok")
        epoch = await kept.jobs.leases.acquire(job.number, "gone") or 0
        await kept.jobs.journal.put(AttemptStarted(Unit(job.number, 0, 0, 0), 1, epoch, time.time()))
        await kept.jobs.update(job.number, {"owner": None})
        await kept.manager.run(job.id)
        tally = (await kept.manager.read_progress(job.id)).counts[ResultGroup("up/fail-2-then-ok", ANSWERED)]
        made = await kept.jobs.results.list_attempts(Unit(job.number, 0, 0, 0))

    assert tally.attempts == len(made) == 4


def _call(query: Query) -> Call:
    return Call(0, 0, 0, Target("m", "m", "up", "m"), query)


def test_an_answer_of_unknown_cost_counts_for_the_most_that_it_can_have_cost() -> None:
    budget = Budget(lambda _, usage: Cost((usage.output_tokens or 0) * 1.0, "test") if usage else None, limit_usd=10.0)
    call = _call(Query(prompt="", sampling=Sampling(max_tokens=4)))
    reserved = budget.reserve(call)
    assert reserved == 4.0
    budget.settle(reserved, Completion((), None))
    assert budget.spent_usd == 4.0


def test_without_a_price_nothing_is_sent() -> None:
    assert Budget(lambda *_: None, limit_usd=1.0).reserve(_call(Query(prompt="hi"))) is None
    assert Budget(lambda *_: None).reserve(_call(Query(prompt="hi"))) == 0.0


def test_tools_are_read_as_well() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 1_000}}]
    assert max_input_tokens(Query(messages=(Message("user", "hi"),), passthrough={"tools": tools})) > 1_000


async def test_a_limit_on_cost_is_checked_for_every_model_of_every_row(upstream: Upstream, tmp_path: Path) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    async with keeping(upstream.url, tmp_path, more=more) as kept:
        job = await kept.create(2, "up/ok")
        await kept.manager.cancel(job.id)
        await kept.manager.resume(job.id, max_cost_usd=1.0)
        job = await kept.manager.run(job.id)

    assert (job.state, upstream.requests) == ("stopped", [])
    assert "`up/ok`" in (job.reason or "")


async def test_a_fork_knows_how_many_calls_it_will_make(upstream: Upstream, tmp_path: Path) -> None:
    async with keeping(upstream.url, tmp_path, more={"sets": {"all": ["up/ok"]}}) as kept:
        job = await kept.create(3, "all")
    async with keeping(upstream.url, tmp_path, more={"sets": {"all": ["up/ok", "up/say-hi"]}}) as kept:
        with pytest.raises(RequestError):
            await kept.manager.run(job.id)
        forked = await kept.manager.resume(job.id, fork=True)
        assert forked.units == 6


async def test_a_long_id_comes_back_as_it_was_given(upstream: Upstream, tmp_path: Path) -> None:
    ids = ["問" * 400 + "1", "問" * 400 + "2"]
    async with keeping(upstream.url, tmp_path) as kept:
        given = [InputRow(line, {"prompt": "hi", "custom_id": name}) for line, name in enumerate(ids, 1)]
        job = await kept.manager.create(JobSpec(models=({"model": "up/ok"},)), given)
        job = await kept.manager.run(job.id)
        assert [row.custom_id for row in await kept.results(job)] == ids


class Counting:
    """An understanding that notes how often others had their turn before each row."""

    def __init__(self, inner: RequestBuilder) -> None:
        self._inner = inner
        self.turns = 0
        self.seen: list[int] = []

    def parse_row(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        return self._inner.parse_row(values)

    def build_request(self, body: str) -> Request:
        self.seen.append(self.turns)
        return self._inner.build_request(body)

    async def others(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)


async def test_planning_lets_others_have_their_turn(upstream: Upstream, tmp_path: Path) -> None:
    """A page of the input is not planned in one go, though nothing of it is to be asked."""
    async with keeping(upstream.url, tmp_path) as kept:
        job = await kept.manager.run((await kept.create(250, "up/ok")).id)
        builder = Counting(make_row_request_builder(job.spec, ""))
        epoch = await kept.jobs.leases.acquire(job.number, "me") or 0
        counts = (await kept.manager.read_progress(job.id)).counts
        worker = JobWorker(kept.jobs, kept.dispatcher, job, epoch, builder, counts)
        others = asyncio.create_task(builder.others())
        assert await worker.run() == ("done", None)
        others.cancel()

    assert len(builder.seen) == 250
    assert max(Counter(builder.seen).values()) <= 8


async def test_input_is_kept_only_for_the_job_that_it_was_read_for(upstream: Upstream, tmp_path: Path) -> None:
    """The number of a job that was forgotten is the next one's; whoever still reads for the first must not fill the second."""
    async with keeping(upstream.url, tmp_path) as kept:
        number = await kept.jobs.create(NewJobRow("first", 0.0, account_id="", spec="{}", fingerprint="{}"))
        epoch = await kept.jobs.leases.acquire(number, "me") or 0
        await kept.jobs.discard(number)
        with pytest.raises(LeaseLostError):
            await kept.jobs.inputs.add(number, [InputItem(0, 1, None, "{}")], epoch)


async def test_a_bug_stops_the_job_and_frees_it(upstream: Upstream, tmp_path: Path, logged: list[str]) -> None:
    async with keeping(upstream.url, tmp_path) as kept:
        spec = JobSpec(models=({"model": "up/ok"},), unattended=True)
        job = await kept.manager.create(spec, rows(3))
        # A body that no job of this kind can have.
        async with kept.store.database.write_transaction() as connection:
            await connection.exec_driver_sql("UPDATE items SET body = '[]'")
        await kept.manager.supervisor.run_job(job)
        job = await kept.manager.find_job(job.id)

    assert (job.state, job.owner) == ("stopped", None)
    assert any("job.crashed" in line for line in logged)
