"""Jobs that stop when they are decided, through the real runner: how often a false alarm is raised, and a difference found.

usage: stopping.py [--jobs 1000] [--items 100] [--check]

Every job runs on a store in memory with two entries of an embedded model, and is watched after every item. The score is
whether the answer contains the letter e. Equal: both write one word. Different: one of them writes three. `--check` exits with
1 if more jobs of equal models than alpha are decided for one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fanout.config.settings import load_settings
from fanout.core.json_text import JsonObject
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.observability import logs
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import MEMORY, open_store

ALPHA = 0.05
JOBS_AT_ONCE = 50
"""In one store, which is then thrown away: a thousand jobs would fill the memory."""
BEGINNINGS = ("The value of", "Return the", "If the", "A list of", "This is", "The first argument", "Raise an", "The default")
EQUAL: Sequence[JsonObject] = [{"model": "local/ngram-2", "label": label} for label in "ab"]
DIFFERENT: Sequence[JsonObject] = [{**EQUAL[0], "max_tokens": 3}, EQUAL[1]]


class Outcomes(NamedTuple):
    """The ends of some jobs."""

    reasons: Counter[str]
    """By outcome: the better model, or `undecided`."""
    items: list[int]
    """Items of each job that were looked at."""
    calls: int


async def simulate(models: Sequence[JsonObject], jobs: int, items: int) -> Outcomes:
    """Run jobs one after the other, and return how they ended."""
    outcomes = Outcomes(Counter(), [], 0)
    async with open_dispatcher(load_settings()) as dispatcher:
        for first in range(0, jobs, JOBS_AT_ONCE):
            seeds = range(first, min(first + JOBS_AT_ONCE, jobs))
            for job, calls in await _run_jobs(dispatcher, models, seeds, items):
                _count(outcomes, job)
                outcomes = outcomes._replace(calls=outcomes.calls + calls)
    return outcomes


async def _run_jobs(
    dispatcher: Dispatcher, models: Sequence[JsonObject], seeds: Sequence[int], items: int
) -> list[tuple[Job, int]]:
    """Return jobs that have ended, one for each seed of an order, with their calls."""
    async with open_store(MEMORY) as opened:
        assert opened
        store, found = JobStore(opened.database), []
        open_scorer = make_scorer_factory(store, allow_functions=False)
        async with open_job_manager(store, dispatcher, open_scorer=open_scorer) as manager:
            for seed in seeds:
                spec = JobSpec(
                    models=tuple(models),
                    parameters={"max_tokens": 1, "temperature": 1},
                    scorers=({"type": "contains", "text": "e", "name": "has e"},),
                    until_decided={"metric": "has e", "alpha": ALPHA, "seed": seed},
                )
                rows = (InputRow(n + 1, {"prompt": f"{BEGINNINGS[n % len(BEGINNINGS)]}"}) for n in range(items))
                created = await manager.create(spec, rows)
                job = await manager.run(created.id)
                found.append((job, (await manager.read_progress(job.id)).ended))
    return found


def _count(outcomes: Outcomes, job: Job) -> None:
    """Add the end of a job, as its reason states it."""
    reason = job.reason or ""
    outcomes.reasons[reason.partition(" items: ")[2].partition(" is better")[0] if "is better" in reason else "undecided"] += 1
    outcomes.items.append(int(reason.partition(" after ")[2].split()[0].replace(",", "")))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--check", action="store_true", help="exit with 1 if there are more false alarms than alpha allows")
    options = parser.parse_args()
    logs.configure("error", "text")
    alarms = 0
    for name, models in (("equal", EQUAL), ("different", DIFFERENT)):
        began = time.process_time()
        found = asyncio.run(simulate(models, options.jobs, options.items))
        used_s = time.process_time() - began
        decided = ", ".join(f"{count} for {model}" for model, count in sorted(found.reasons.items()) if model != "undecided")
        median = sorted(found.items)[len(found.items) // 2]
        print(
            f"{name}: {options.jobs:,} jobs, decided {decided or 'none'}; median stop {median} of {options.items} items; "
            f"{found.calls:,} calls, {used_s:.0f} s of processor time"
        )
        if name == "equal":
            alarms = options.jobs - found.reasons["undecided"]
    if options.check and alarms > ALPHA * options.jobs:
        raise SystemExit(f"{alarms} false alarms are more than {ALPHA:.0%} of {options.jobs:,}")


if __name__ == "__main__":
    main()
