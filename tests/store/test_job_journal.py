"""Journal and inputs of jobs in the store: nothing is lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import LeaseLostError, StoreError
from fanout.core.usage import WorkTotals
from fanout.store.engine.writers import GroupCommit
from fanout.store.jobs.journal import AttemptStarted, UnitEnded
from fanout.store.jobs.records import InputItem, NewJobRow, Unit
from fanout.store.usage import ANSWERED
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


async def test_an_entry_that_cannot_be_written_does_not_stop_the_writer(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/ok")
        epoch = await kept.jobs.leases.acquire(job.number, "me")
        assert epoch
        unit = Unit(job.number, 0, 0, 0)
        async with asyncio.timeout(30):
            with pytest.raises(StoreError):
                await kept.jobs.journal.put(UnitEnded(unit, 1, epoch, 0.0, "up/ok", ANSWERED, "{}", WorkTotals(1, 10**30)))
            await kept.jobs.journal.put(UnitEnded(unit, 1, epoch, 0.0, "up/ok", ANSWERED, "{}", WorkTotals(1, 1)))


async def test_an_entry_being_written_at_the_end_is_still_written(upstream: Upstream, tmp_path: Path) -> None:
    """The task that put it may have been cancelled."""
    written: list[int] = []

    def write_slowly(_: Any, records: Any) -> list[None]:
        time.sleep(0.2)
        written.extend(records)
        return [None] * len(records)

    async with open_jobs(upstream.url, tmp_path) as kept:
        journal: GroupCommit[int] = GroupCommit(kept.store.database, write_slowly)
        async with journal.run():
            putting = journal.put(1)
            await asyncio.sleep(0.1)
            putting.cancel()  # as the cancellation of a task does that awaits it

    assert written == [1]


@pytest.mark.parametrize("record", ["started", "ended"])
async def test_an_entry_written_twice_is_counted_once(upstream: Upstream, tmp_path: Path, record: str) -> None:
    """If a connection breaks during a commit, nobody knows whether it happened: the entry is written again."""
    async with open_jobs(upstream.url, tmp_path) as kept:
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

        assert sum(sums.calls for sums in (await kept.jobs.results.read_counts([job.number]))[job.number].values()) == (
            record == "ended"
        )


async def test_input_is_not_added_to_a_later_job_of_the_same_number(upstream: Upstream, tmp_path: Path) -> None:
    """The number of a discarded job is given to the next; a reader of the first must not fill the second."""
    async with open_jobs(upstream.url, tmp_path) as kept:
        number, epoch = await kept.jobs.create(NewJobRow("first", 0.0, account_id="", spec="{}", fingerprint="{}"), "me")
        await kept.jobs.discard(number)
        again, _ = await kept.jobs.create(NewJobRow("second", 0.0, account_id="", spec="{}", fingerprint="{}"), "me")
        assert again == number
        with pytest.raises(LeaseLostError):
            await kept.jobs.inputs.add(number, [InputItem(0, 1, None, "{}")], epoch)
