"""Money that several runs share: never more than the limit, whoever dies, and all of it down to the last call that fits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from fanout.core.errors import LeaseLostError
from fanout.core.schema import Call, Completion, Query, Target
from fanout.core.usage import Cost, Usage
from fanout.jobs.allowance import Allowance
from fanout.jobs.budget import Budget
from fanout.jobs.job import Job, JobSpec, find_job
from fanout.store.engine.database import Database
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptFailed, AttemptStarted
from fanout.store.jobs.money import MoneyChange, apply_changes
from fanout.store.jobs.records import NewJobRow, Unit
from fanout.store.jobs.sharing_tables import job_money
from fanout.store.opening import MEMORY, open_store
from fanout.store.tables import jobs

LIMIT_USD = 1.0
PRICES_USD = (0.3, 0.11, 0.03)
"""The most that a call of each size can cost."""
SEEDS, STEPS = 4, 40
ACTIONS = ("start", "start", "start", "end", "end", "look", "look", "kill", "leave")
ANSWER = Completion((), usage=Usage(0, 0))


@dataclass(eq=False)
class Runner:
    """One run of the job: reserves, sends and records calls as a worker does."""

    database: Database
    job: Job
    allowance: Allowance = field(init=False)
    budget: Budget = field(init=False)
    calls: list[float] = field(default_factory=list)
    """Money set aside for the calls under way."""
    is_stopped: bool = False

    def __post_init__(self) -> None:
        self.budget = Budget(lambda call, _: Cost(PRICES_USD[int(call.query.prompt or 0)], "test"), 0.0)
        self.allowance = Allowance(
            JobStore(self.database).money, self.job, self.budget, pay_again=lambda: None, stop=self._stop
        )

    def _stop(self, _: float) -> None:
        self.is_stopped = True

    async def start(self, size: int) -> bool:
        """Send a call, if there is money for it."""
        usd = self.budget.reserve(make_sized_call(size))
        if usd is None:
            return False
        await self._change(usd, 0.0)
        self.calls.append(usd)
        return True

    async def end(self, part: float) -> float:
        """End the oldest call, which costs part of what was set aside; return the cost."""
        usd = self.calls.pop(0)
        await self._change(-usd, usd * part)
        self.budget.settle(usd, ANSWER, Cost(usd * part, "test"))
        return usd * part

    async def _change(self, open_usd: float, recorded_usd: float) -> None:
        key = (self.job.number, self.allowance.holder)
        if await self.database.write(lambda connection: apply_changes(connection, {key: (open_usd, recorded_usd)})):
            raise LeaseLostError


def make_sized_call(size: int) -> Call:
    return Call(0, 0, 0, Target("m", "m", "up", "m"), Query(prompt=str(size)))


@asynccontextmanager
async def open_job(location: str) -> AsyncIterator[tuple[Database, Job]]:
    async with open_store(location) as store:
        assert store
        yield store.database, await add_job(store.database, "job")


async def add_job(database: Database, job_id: str) -> Job:
    kept = JobStore(database)
    spec = JobSpec(max_cost_usd=LIMIT_USD).to_json()
    await kept.create(NewJobRow(job_id, 0.0, account_id="", spec=spec, fingerprint="{}"), "owner")
    return await find_job(kept, job_id)


async def join(database: Database, job: Job) -> Runner:
    runner = Runner(database, job)
    await runner.allowance.join()
    await runner.allowance.look()
    return runner


async def let_lease_run_out(runner: Runner) -> None:
    is_it = job_money.c.holder == runner.allowance.holder
    await runner.database.execute(update(job_money).where(is_it).values(lease_until=0.0))


async def exhaust(runners: list[Runner], size: int) -> float:
    """Let runs send calls of one size until one of them stops the job; return what they have cost."""
    spent = 0.0
    for _ in range(100):
        for runner in runners:
            while await runner.start(size):
                pass
            await runner.allowance.look()
            if runner.is_stopped:
                return spent
            while runner.calls:
                spent += await runner.end(0.8)
    raise AssertionError("a job without money stops")


async def test_whatever_runs_do_and_however_they_die_the_limit_holds_and_is_used_up(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "fanout.db")) as store:
        assert store
        for seed in range(SEEDS):
            spent = await run_at_random(store.database, await add_job(store.database, f"job {seed}"), random.Random(seed))
            assert LIMIT_USD - PRICES_USD[2] < spent <= LIMIT_USD * (1 + 1e-9), seed


async def run_at_random(database: Database, job: Job, dice: random.Random) -> float:
    """Let three runs do what the dice say until the job stops; return its cost, with all that cut-off calls may have cost."""
    runners = [await join(database, job) for _ in range(3)]
    spent = 0.0
    for _ in range(STEPS):
        place = dice.randrange(3)
        runner, action = runners[place], dice.choice(ACTIONS)
        if action == "start":
            await runner.start(dice.randrange(3))
        elif action == "end" and runner.calls:
            spent += await runner.end(dice.random())
        elif action == "look":
            await runner.allowance.look()
        elif action == "kill":
            spent += sum(runner.calls)
            await let_lease_run_out(runner)
            runners[place] = await join(database, job)
        elif action == "leave" and not runner.calls:
            await runner.allowance.leave()
            runners[place] = await join(database, job)
        assert spent + sum(sum(each.calls) for each in runners) <= LIMIT_USD * (1 + 1e-9)
    for runner in runners:
        while runner.calls:
            spent += await runner.end(1.0)
    return spent + await exhaust(runners, 2)


async def test_runs_at_the_same_time_draw_no_more_than_the_limit(location: str) -> None:
    async with open_job(location) as (database, job):
        runners = [await join(database, job) for _ in range(4)]

        async def work(runner: Runner) -> float:
            spent = 0.0
            while not any(each.is_stopped for each in runners):
                while await runner.start(2):
                    pass
                await runner.allowance.look()
                while runner.calls:
                    spent += await runner.end(0.4)
            return spent

        spent = sum(await asyncio.gather(*map(work, runners)))

    assert LIMIT_USD - PRICES_USD[2] < spent <= LIMIT_USD * (1 + 1e-9)


async def test_what_one_run_does_not_use_comes_back_to_another_that_needs_it() -> None:
    async with open_job(MEMORY) as (database, job):
        idle, busy = await join(database, job), await join(database, job)
        assert idle.budget.unused_usd > 0.3
        for _ in range(3):
            await busy.start(0)
            await busy.allowance.look()
        assert not await busy.start(0)
        before = len(busy.calls)
        await idle.allowance.look()
        assert idle.budget.unused_usd == 0
        await busy.allowance.look()
        assert await busy.start(0)
        assert not busy.is_stopped

    assert before == 1


async def test_a_run_that_slept_through_its_lease_can_neither_send_nor_draw() -> None:
    async with open_job(MEMORY) as (database, job):
        slow, other = await join(database, job), await join(database, job)
        assert await slow.start(1)
        await let_lease_run_out(slow)
        for _ in range(3):  # more than would be left without the other's money
            await other.start(0)
            await other.allowance.look()
        with pytest.raises(LeaseLostError):
            await slow.start(1)
        with pytest.raises(LeaseLostError):
            await slow.end(1.0)
        with pytest.raises(LeaseLostError):
            await slow.allowance.look()
        rows: list[Any] = list(await database.fetch_all(job_money.select().where(job_money.c.holder == "")))

    assert [row.open_usd for row in rows] == [PRICES_USD[1]]


async def test_an_entry_of_the_journal_that_is_written_again_changes_the_money_once(location: str) -> None:
    """The database had committed it, and failed before it said so."""
    async with open_job(location) as (database, job):
        runner = await join(database, job)
        kept, unit, epoch = JobStore(database), Unit(job.number, 0, 0, 0), await database.fetch_one(select(jobs.c.epoch))
        money = MoneyChange(runner.allowance.holder, 0.5)
        started = AttemptStarted(unit, 1, epoch[0], 0.0, money=money)
        failed = AttemptFailed(unit, 1, epoch[0], 0.0, "network", "{}", money=money._replace(open_usd=-0.25))
        async with kept.journal.run():
            for entry in (started, failed):
                await kept.journal.put(entry)
                await kept.journal.put(replace(entry, again=True))
        row = await database.fetch_one(select(job_money.c.open_usd).where(job_money.c.holder == runner.allowance.holder))

    assert row[0] == 0.25
