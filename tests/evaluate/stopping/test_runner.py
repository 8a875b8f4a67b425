"""Watched jobs through the real runner, against models with planted differences.

`scripts/bench/stopping.py` runs a thousand of them on the embedded models; these few are the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fanout.dispatch.dispatcher import open_dispatcher
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.evaluate.stopping.watch import JobWatch
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.jobs.stopping import StoppingPlan
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Unit, UnitScore
from fanout.store.opening import MEMORY, open_store
from tests.support.adapters.planted import is_right
from tests.support.builders.settings import load_own_settings

ITEMS = 40


async def run_jobs(folder: Path, models: Sequence[str], seeds: range) -> list[str | None]:
    """Return the reasons for which jobs of planted models have ended, each with rows and an order of its own."""
    settings = load_own_settings(folder, {"providers": {"planted": {"adapter": "tests.support.adapters.planted"}}})
    found: list[str | None] = []
    async with open_store(MEMORY) as opened, open_dispatcher(settings) as dispatcher:
        assert opened
        store = JobStore(opened.database)
        open_scorer = make_scorer_factory(store, allow_functions=False)
        async with open_job_manager(store, dispatcher, open_scorer=open_scorer) as manager:
            for seed in seeds:
                spec = JobSpec(
                    models=tuple({"model": f"planted/{model}"} for model in models),
                    scorers=({"type": "exact"},),
                    until_decided={"metric": "exact", "seed": seed},
                )
                rows = (InputRow(n + 1, {"prompt": f"{seed}: {n}", "reference": "yes"}) for n in range(ITEMS))
                found.append((await manager.run((await manager.create(spec, rows)).id)).reason)
    return found


def decide(models: Sequence[str], seed: int) -> str:
    """Return what the rule says where every item ends in its turn, and nothing is looked at before it."""
    watch = JobWatch(
        StoppingPlan("exact", seed), ITEMS, {n: f"planted/{name}" for n, name in enumerate(models)}, 1, "score_zero", 1
    )
    for item in watch.order:
        for entry in tuple(watch.live):
            score = UnitScore(1, float(is_right(models[entry], f"{seed}: {item}")))
            watch.record(Unit(1, item, entry, 0), [score], answered=True)
        watch.look()
        if watch.final:
            return watch.final.sentence
    raise AssertionError("a watch ends with its items at the latest")


@pytest.mark.parametrize("models", [("50/a", "50/b"), ("90/a", "40/b")], ids=["equal", "different"])
async def test_the_runner_stops_where_the_rule_says_that_its_recorded_order_is_decided(
    tmp_path: Path, models: Sequence[str]
) -> None:
    seeds = range(4)
    reasons = await run_jobs(tmp_path, models, seeds)

    assert reasons == [decide(models, seed) for seed in seeds]
    assert all("planted/90/a is better" in str(reason) for reason in reasons) == (models[0] == "90/a")
