"""Chunks of jobs on PostgreSQL: cut, claimed, handed back and ended, each by one process at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from fanout.core.errors import LeaseLostError
from fanout.store.engine.database import Database
from fanout.store.jobs.chunks import MAX_UNITS, MIN_UNITS, size_chunks
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptStarted
from fanout.store.jobs.records import Chunk, ChunkLoad, NewJobRow, Standing, Unit
from fanout.store.jobs.sharing_tables import job_chunks
from fanout.store.opening import open_store
from fanout.store.tables import jobs
from tests.support.databases import query

pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
HERE, THERE = "here|machine|1|1", "there|machine|2|2"


@asynccontextmanager
async def open_queued(location: str, items: int = 200) -> AsyncIterator[tuple[JobStore, int, Database]]:
    """Open a store with a queued job of so many items, each of one unit."""
    async with open_store(location) as store:
        assert store
        kept = JobStore(store.database)
        number, epoch = await kept.create(NewJobRow("job", 0.0, account_id="", spec="{}", fingerprint="{}"), HERE)
        await kept.update(number, {"state": "queued", "owner": None, "items": items, "units": items}, epoch=epoch)
        async with kept.journal.run():
            yield kept, number, store.database


async def end_all(kept: JobStore, number: int, chunks: Sequence[Chunk], reason: str | None = None) -> None:
    for chunk in chunks:
        assert await kept.chunks.end(number, chunk, reason)


async def test_processes_that_claim_at_once_share_the_places_of_a_job(location: str) -> None:
    async with open_queued(location) as (kept, number, _):
        found = await asyncio.gather(*(kept.chunks.claim(number, f"{each}|m|1|1", 1) for each in range(6)))
        row = await kept.find("job")

    taken = sorted(chunk for chunks in found for chunk in chunks)
    places = [place for chunk in taken for place in range(chunk.first, chunk.first + chunk.size)]
    assert places == list(range(200))
    assert row
    assert row.state == "running"
    assert row.owners == "\n".join(f"{each}|m|1|1" for each, chunks in enumerate(found) if chunks)


async def test_a_job_ends_once_when_its_last_chunks_end_at_the_same_time(location: str) -> None:
    async with open_queued(location) as (kept, number, _):
        chunks = await kept.chunks.claim(number, HERE, 9)
        assert await kept.chunks.close(number) is None  # somebody has them
        await asyncio.gather(*(kept.chunks.end(number, chunk, "its model is gone") for chunk in chunks))
        states = await asyncio.gather(*(kept.chunks.close(number) for _ in range(4)))
        row = await kept.find("job")

    assert sorted(states, key=str) == [None, None, None, "stopped"]
    assert row
    assert (row.state, row.reason, row.owners) == ("stopped", "its model is gone", "")
    assert query(location, "SELECT count(*) FROM job_chunks") == [(0,)]


async def test_a_lease_that_was_lost_writes_nothing_even_after_the_job_is_cut_again(location: str) -> None:
    async with open_queued(location) as (kept, number, database):
        (old, *_) = await kept.chunks.claim(number, HERE, 1)
        await database.execute(update(job_chunks).values(lease_until=0.0))
        (new, *_) = await kept.chunks.claim(number, THERE, 1)
        assert (new.number, new.epoch) == (old.number, old.epoch + 1)
        standing, mine = await kept.chunks.renew(number, [ChunkLoad(old.number, old.epoch, 1, 0, None)])
        assert (standing and standing.state, mine) == ("running", frozenset())
        assert not await kept.chunks.end(number, old)
        await kept.chunks.request_end(number, "stopped", "enough")
        assert await kept.chunks.list_claimable([number], [THERE]) == frozenset()
        await kept.chunks.release(number, [new])
        assert await kept.chunks.close(number) == "stopped"
        assert await kept.queue(number, "{}", states=("stopped",), dead_owners=())
        again = await kept.chunks.claim(number, THERE, 9)
        assert min(chunk.epoch for chunk in again) > new.epoch
        await kept.chunks.request_end(number, "stopped", "too late", new.cut)
        assert (await kept.chunks.renew(number, []))[0] == Standing("running")
        for chunk in (old, new):
            with pytest.raises(LeaseLostError):
                await kept.journal.put(AttemptStarted(Unit(number, 0, 0, 0), 1, chunk.epoch, 0.0, chunk=chunk.number))
        await kept.journal.put(AttemptStarted(Unit(number, 0, 0, 0), 1, again[0].epoch, 0.0, chunk=again[0].number))

    assert query(location, "SELECT count(*) FROM attempts") == [(1,)]


async def test_chunks_of_the_dead_and_those_handed_back_are_claimed_at_once(location: str) -> None:
    async with open_queued(location) as (kept, number, _):
        first, second, *_ = await kept.chunks.claim(number, HERE, 9)
        assert not await kept.chunks.claim(number, THERE, 9)
        assert await kept.chunks.list_claimable([number], ()) == frozenset()
        assert await kept.chunks.list_claimable([number], [HERE]) == {number}
        await kept.chunks.release(number, [second])
        assert [chunk.number for chunk in await kept.chunks.claim(number, THERE, 9)] == [second.number]
        assert first.number in [chunk.number for chunk in await kept.chunks.claim(number, THERE, 9, dead_owners=[HERE])]


async def test_what_an_answer_that_was_lost_has_given_is_given_again(location: str) -> None:
    async with open_queued(location) as (kept, number, _):
        (lost,) = await kept.chunks.claim(number, HERE, 1)
        (again,) = await kept.chunks.claim(number, HERE, 1)
        (other,) = await kept.chunks.claim(number, HERE, 1, held=[again.number])

    assert (again.number, again.epoch) == (lost.number, lost.epoch + 1)
    assert other.number != lost.number


async def test_a_job_that_nobody_runs_is_queued_and_goes_on_where_it_was(location: str) -> None:
    async with open_queued(location) as (kept, number, _):
        first, *others = await kept.chunks.claim(number, HERE, 9)
        await kept.chunks.end(number, first)
        await kept.chunks.release(number, others)
        assert await kept.chunks.close(number) is None
        row = await kept.find("job")
        assert row
        assert row.state == "queued"
        assert [chunk.number for chunk in await kept.chunks.claim(number, THERE, 9)] == [chunk.number for chunk in others]


@pytest.mark.parametrize("state", ["cancelling", "queued", "done"])
async def test_nothing_is_claimed_of_a_job_that_is_to_end(location: str, state: str) -> None:
    async with open_queued(location) as (kept, number, database):
        await database.execute(update(jobs).values(state=state))
        assert bool(await kept.chunks.claim(number, HERE, 1)) == (state == "queued")
        await kept.chunks.request_end(number, "expired", "late")
        assert not await kept.chunks.claim(number, HERE, 1)


async def test_a_million_items_are_cut_in_one_statement(location: str) -> None:
    async with open_queued(location, 1_000_000) as (kept, number, _):
        began = time.process_time()
        (chunk,) = await kept.chunks.claim(number, HERE, 1)
        assert time.process_time() - began < 0.5  # of this process: the rows never come here

    assert chunk.size == MAX_UNITS
    sizes = [size_chunks(*job) for job in ((10, 10), (6_400, 6_400), (1_000, 8_000), (100, 6_000), (0, 0))]
    assert sizes == [MIN_UNITS, MAX_UNITS, 25, 3, 1]  # whole items, as many units as suit the job
    assert query(location, "SELECT count(*), sum(count) FROM job_chunks") == [(5_000, 1_000_000)]
