"""Decisions of jobs in the store: one process looks at a time, and what it finds is there for the others."""

from __future__ import annotations

from sqlalchemy import update

from fanout.store.jobs.sharing_tables import job_watches
from fanout.store.jobs.watches import JobWatches, WatchState
from fanout.store.opening import open_store

JOB = 1


async def test_one_looks_and_another_takes_its_place_when_it_has_left_or_died(location: str) -> None:
    async with open_store(location) as store:
        assert store
        watches = JobWatches(store.database)
        assert await watches.join(JOB, "a") == WatchState(True, 0, [])
        assert await watches.publish(JOB, "a", WatchState(True, 32, [1], "decided"))
        assert await watches.join(JOB, "b") == WatchState(False, 32, [1], "decided")
        assert not await watches.publish(JOB, "b", WatchState(True, 64))
        assert (await watches.join(JOB, "a")).is_own

        await watches.leave(JOB, "a")
        assert await watches.join(JOB, "b") == WatchState(True, 32, [1], "decided")
        assert not await watches.publish(JOB, "a", WatchState(True, 64))

        await store.database.execute(update(job_watches).values(lease_until=0.0))
        assert (await watches.join(JOB, "c")).is_own
        assert not (await watches.join(JOB, "b")).is_own
