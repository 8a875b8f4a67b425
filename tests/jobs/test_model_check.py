"""Jobs that the configuration of one process of many does not fit."""

from __future__ import annotations

from pathlib import Path

from fanout.jobs.model_check import ModelCheck
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


async def test_a_job_whose_models_stand_for_something_else_here_is_passed_over_and_its_reason_logged_once(
    upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    store = str(tmp_path / "jobs.db")
    async with (
        open_jobs(upstream.url, tmp_path, store=store) as kept,
        open_jobs("http://127.0.0.1:1/v1", tmp_path / "other", store=store) as other,
    ):
        job = await kept.create(1, "up/a", unattended=True)
        same, different = ModelCheck(), ModelCheck()
        assert [same.fits(job, kept.manager.planner) for _ in range(2)] == [True, True]
        assert [different.fits(job, other.manager.planner) for _ in range(2)] == [False, False]
        passed_over = [line for line in log_lines if "job.passed_over" in line]
        assert len(passed_over) == 1
        assert f"was `{upstream.url}`, is `http://127.0.0.1:1/v1`" in passed_over[0]

        await other.dispatcher.reload(kept.dispatcher.settings)
        assert different.fits(job, other.manager.planner), "after a reload it is looked at anew"
