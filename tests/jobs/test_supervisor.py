"""Supervisor of unattended jobs."""

from __future__ import annotations

from pathlib import Path

from fanout.jobs.job import JobSpec
from tests.support.builders.jobs import make_rows, open_jobs
from tests.support.upstream.server import Upstream


async def test_a_bug_stops_the_job_and_releases_its_lease(upstream: Upstream, tmp_path: Path, log_lines: list[str]) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        spec = JobSpec(models=({"model": "up/ok"},), unattended=True)
        job = await kept.manager.create(spec, make_rows(3))
        # A body that no job of this kind can have.
        async with kept.store.database.write_transaction() as connection:
            await connection.exec_driver_sql("UPDATE items SET body = '[]'")
        await kept.manager.supervisor.run_job(job)
        job = await kept.manager.find_job(job.id)

    assert (job.state, job.owner) == ("stopped", None)
    assert any("job.crashed" in line for line in log_lines)
