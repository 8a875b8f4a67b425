"""Leases of jobs when this machine's time is set: a dead process loses its job, and a living one keeps it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.leases import LEASE_S
from fanout.store.jobs.records import NewJobRow
from fanout.store.opening import open_store
from fanout.store.tables import jobs

ELSEWHERE = "host|another machine|1|1"
"""A process of which nobody here knows whether it lives."""
ACQUIRE = """
import asyncio, sys, time
from pathlib import Path
from fanout.store.opening import open_store
from fanout.store.jobs.job_store import JobStore

async def main():
    clock, location, *numbers = sys.argv[1:]
    async with open_store(location) as store:
        for offset_s in ("-3600", "+3600"):
            Path(clock).write_text(offset_s)
            for number in numbers:
                epoch = await JobStore(store.database).leases.acquire(int(number), "here|this machine|1|1")
                print(offset_s, round(time.time()), epoch is not None)

asyncio.run(main())
"""
"""A process whose clock is set while it runs: to an hour ago, then to an hour from now."""


async def test_setting_the_clock_neither_steals_a_living_job_nor_keeps_a_dead_one(tmp_path: Path) -> None:
    location, clock = str(tmp_path / "fanout.db"), tmp_path / "clock"
    clock.write_text("+0")
    async with open_store(location) as store:
        assert store
        kept = JobStore(store.database)
        living, dead = [(await kept.create(make_row(name), ELSEWHERE))[0] for name in ("living", "dead")]
        run_out = store.database.lease_clock() - 1
        await store.database.execute(update(jobs).where(jobs.c.number == dead).values(lease_until=run_out))
        began = time.time()
        lines = await run_with_clock(clock, location, str(living), str(dead))

    assert [(offset, got) for offset, _, got in lines] == [
        *[("-3600", "False"), ("-3600", "True")],
        *[("+3600", "False"), ("+3600", "True")],  # which is its own by now
    ]
    for offset, moment, _ in lines:
        assert float(moment) - began == pytest.approx(float(offset), abs=600)


async def run_with_clock(clock: Path, *arguments: str) -> list[list[str]]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    # Setting a machine's time does not change the time since its start.
    environ = {**os.environ, **faked, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACQUIRE, str(clock), *arguments), env=environ, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return [line.split() for line in output.decode().splitlines()]


async def test_a_lease_that_ends_later_than_any_can_has_run_out(location: str) -> None:
    """It was taken before the machine was started again, or by a version whose leases ended at a time of day."""
    async with open_store(location) as store:
        assert store
        kept = JobStore(store.database)
        number, epoch = await kept.create(make_row("job"), ELSEWHERE)
        assert await kept.leases.acquire(number, "here") is None
        later = store.database.lease_clock() + 10 * LEASE_S
        await store.database.execute(update(jobs).where(jobs.c.number == number).values(lease_until=later))
        found = await kept.find("job")
        assert found
        assert not found.owners
        assert await kept.leases.acquire(number, "here") == epoch + 1


def make_row(job_id: str) -> NewJobRow:
    return NewJobRow(job_id, 0.0, account_id="", spec="{}", fingerprint="{}")
