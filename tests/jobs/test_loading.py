"""Loading of inputs: it ends when its job is cancelled, and nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fanout.core.errors import RequestError, StoppingError
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from tests.support.builders.jobs import OpenJobs, make_rows, open_jobs
from tests.support.upstream.server import Upstream

SPEC = JobSpec(models=({"model": "up/ok"},))


class EndlessRows:
    """Rows without end, and how many were taken."""

    taken = 0

    def __iter__(self) -> Iterator[InputRow]:
        for number in count():
            self.taken += 1
            yield InputRow(number + 1, {"prompt": f"q{number}"})


async def wait_for_loading_job(kept: OpenJobs) -> Job:
    while not (found := await kept.manager.list_jobs(limit=1, states=("loading",))):
        await asyncio.sleep(0.01)
    return found[0]


async def test_a_job_that_is_cancelled_while_its_input_is_read_is_given_up(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        rows = EndlessRows()
        creating = asyncio.create_task(kept.manager.create(SPEC, rows))
        job = await wait_for_loading_job(kept)
        assert (await kept.manager.cancel(job.id)).job.state == "cancelled"
        with pytest.raises(RequestError, match="the job was cancelled while its input was being read"):
            async with asyncio.timeout(5):
                await creating
        assert await kept.manager.list_jobs(limit=1) == []
        async with kept.store.database.read_transaction() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM items")).scalar() == 0


async def test_the_input_of_a_caller_who_leaves_is_not_read_on(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        rows = EndlessRows()
        creating = asyncio.create_task(kept.manager.create(SPEC, rows))
        await wait_for_loading_job(kept)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        await asyncio.sleep(0.1)
        taken = rows.taken
        await asyncio.sleep(0.2)
        assert rows.taken == taken
        assert await kept.manager.list_jobs(limit=1) == []


@pytest.mark.parametrize("what", ["create", "estimate"])
async def test_inputs_are_given_up_when_the_server_stops(upstream: Upstream, tmp_path: Path, what: str) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        rows = EndlessRows()
        reading = asyncio.create_task(getattr(kept.manager, what)(SPEC, rows))
        while not rows.taken:
            await asyncio.sleep(0.01)
        kept.manager.stop_loading()
        for begun_before in (True, False):
            with pytest.raises(StoppingError, match="the server is stopping"):
                async with asyncio.timeout(5):
                    await (reading if begun_before else getattr(kept.manager, what)(SPEC, rows))
        assert await kept.manager.list_jobs(limit=1) == []


async def test_an_input_larger_than_a_job_may_be_is_refused_with_the_variable_to_set(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_jobs(upstream.url, tmp_path, environ={"FANOUT_MAX_JOB_BYTES": "4096"}) as kept:
        with pytest.raises(RequestError, match=r"holds more than 4,096 bytes of prompts and columns \(FANOUT_MAX_JOB_BYTES\)"):
            await kept.manager.create(JobSpec(models=SPEC.models, template="{{prompt}}" * 200), make_rows(100))
        assert await kept.manager.list_jobs(limit=1) == []
