"""Fingerprints of jobs: changes of the configuration between two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.core.errors import RequestError
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


async def test_parameters_that_json_writes_differently_count_as_unchanged(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(1, "up/ok", parameters={"stop": ["a", "b"], "logit_bias": {"50256": -100}, "temperature": 1})
        assert (await kept.manager.run(job.id)).state == "done"


async def test_a_job_runs_although_the_limit_group_of_its_model_has_changed(upstream: Upstream, tmp_path: Path) -> None:
    """Groups may change while a job waits: its units belong to the account of now."""
    model = {"provider": "up", "id": "ok", "kind": "chat"}
    async with open_jobs(upstream.url, tmp_path, more={"models": {"fast": model}}) as kept:
        job = await kept.create(5, "fast")
    async with open_jobs(upstream.url, tmp_path, more={"models": {"fast": {**model, "limit_group": "quick"}}}) as kept:
        job = await kept.manager.run(job.id)

        assert len(await kept.list_results(job)) == 5

    assert job.state == "done"
    assert len(upstream.requests) == 5


async def test_a_fork_counts_its_units_by_the_present_configuration(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more={"sets": {"all": ["up/ok"]}}) as kept:
        job = await kept.create(3, "all")
    async with open_jobs(upstream.url, tmp_path, more={"sets": {"all": ["up/ok", "up/say-hi"]}}) as kept:
        with pytest.raises(RequestError):
            await kept.manager.run(job.id)
        forked = await kept.manager.resume(job.id, fork=True)
        assert forked.units == 6
