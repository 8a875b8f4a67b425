"""Scoring of jobs: as their answers end, and afterwards, once for each answer and version of a scorer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.scorers import ScorerInput
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.evaluate.scoring.scoring import JobScorer, make_scorer_factory, score_results
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.result_records import build_records
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.upstream.server import Upstream

CALLS: list[str] = []
"""Texts that `note_call` was given."""


def note_call(given: ScorerInput) -> float:
    """A scorer of the user's own."""
    CALLS.append(given.text)
    return len(given.columns)


def fail(given: ScorerInput) -> float:
    raise LookupError("no such thing")


def declare(*declared: Any) -> Any:
    return tuple({"type": one} if isinstance(one, str) else one for one in declared)


async def create(opened: OpenJobs, rows: list[dict[str, Any]], *models: str, **spec: Any) -> Job:
    entries = tuple({"model": model} for model in models)
    return await opened.manager.create(
        JobSpec(models=entries, **spec), (InputRow(number, row) for number, row in enumerate(rows, 1))
    )


async def read_scores(opened: OpenJobs, job: Job) -> dict[tuple[int, int, int], dict[str, float | None]]:
    found = await opened.list_results(job)
    return {row.place: {score.label: score.value for score in row.scores} for row in found}


async def score(opened: OpenJobs, job: Job, *declared: Any) -> None:
    await score_results(opened.jobs, job.number, parse_scorers(declared, allow_functions=True))


ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "reference": "yes", "topic": "x"},
    {"prompt": "b", "reference": "no"},
    {"prompt": "c"},
]


async def test_answers_are_scored_as_they_end_on_either_database(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as opened:
        job = await create(opened, ROWS, "up/say-yes", "up/fail-99", repeats=2, scorers=declare("exact", "length"))
        await opened.manager.run(job.id)
        scores = await read_scores(opened, job)
        (scorer, _) = await opened.jobs.scores.list_scorers(job.number)

        assert [scores[item, 0, repeat] for item in range(3) for repeat in range(2)] == [
            *[{"exact": 1.0, "length": 1.0}] * 2,
            *[{"exact": 0.0, "length": 1.0}] * 2,
            *[{"exact": None, "length": 1.0}] * 2,
        ]
        assert [scores[item, 1, 0] for item in range(3)] == [{}] * 3, "failures have no scores"
        assert (scorer.label, scorer.version[:8], scorer.is_bounded) == ("exact", "exact/1/", True)
        assert await opened.jobs.scores.count(job.number) == {1: (6, 4), 2: (6, 6)}


async def test_stored_answers_are_scored_without_a_call_and_only_once(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as opened:
        job = await create(opened, ROWS, "up/say-yes", "up/echo")
        await opened.manager.run(job.id)
        sent = len(upstream.requests)
        mine = {"type": "python", "function": f"{__name__}.note_call", "name": "mine"}
        CALLS.clear()
        await score(opened, job, mine, {"type": "contains", "text": "yes"})
        first = await read_scores(opened, job)
        await score(opened, job, mine)

        assert len(upstream.requests) == sent
        assert len(CALLS) == 6, "answers that have a score of this version are not scored again"
        assert [first[item, 0, 0]["mine"] for item in range(3)] == [1.0, 0.0, 0.0], "scorers see the row's columns"
        assert first[0, 0, 0]["contains"] == 1.0
        assert await read_scores(opened, job) == first


async def test_another_version_of_a_scorer_takes_the_place_of_the_old_one_and_may_be_taken_back(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as opened:
        job = await create(opened, ROWS[:1], "up/say-YES", scorers=declare("exact"))
        await opened.manager.run(job.id)
        strict = await read_scores(opened, job)
        await score(opened, job, {"type": "exact", "ignore_case": True})
        lenient = await read_scores(opened, job)
        await score(opened, job, "exact")

        assert strict == {(0, 0, 0): {"exact": 0.0}}
        assert lenient == {(0, 0, 0): {"exact": 1.0}}
        assert await read_scores(opened, job) == strict
        assert [row.label for row in await opened.jobs.scores.list_scorers(job.number)] == ["exact"]


async def test_a_reused_answer_is_scored_too_and_a_retried_one_when_it_is_answered(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, retries={"attempts": 1}) as opened:
        for _ in range(2):
            job = await create(opened, ROWS[:1], "up/say-yes", cache=True, scorers=declare("exact"))
            await opened.manager.run(job.id)
            assert await read_scores(opened, job) == {(0, 0, 0): {"exact": 1.0}}
        job = await create(opened, ROWS[:1], "up/fail-1-then-say-yes", scorers=declare("exact"))
        await opened.manager.run(job.id)
        assert await read_scores(opened, job) == {(0, 0, 0): {}}
        await opened.manager.retry(job.id)
        await opened.manager.run(job.id)
        assert await read_scores(opened, job) == {(0, 0, 0): {"exact": 1.0}}


async def test_a_scorer_that_raises_gives_no_score_but_its_error(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as opened:
        scorers = declare({"type": "python", "function": f"{__name__}.fail", "name": "mine"})
        job = await create(opened, ROWS[:1], "up/say-yes", scorers=scorers)
        ended = await opened.manager.run(job.id)
        (record,) = build_records(await opened.list_results(job))

    assert ended.state == "done"
    assert record["scores"]["mine"]["value"] is None
    assert record["scores"]["mine"]["explanation"] == "LookupError: no such thing"


async def test_a_job_whose_scorers_cannot_be_used_here_is_not_begun(upstream: Upstream, tmp_path: Path) -> None:
    """A server that shares the store refuses functions; the job stays as it is, for a process that may run them."""
    async with open_jobs(upstream.url, tmp_path) as opened:
        scorers = declare({"type": "python", "function": f"{__name__}.note_call"})
        job = await create(opened, ROWS[:1], "up/say-yes", scorers=scorers)
        with pytest.raises(RequestError, match="runs code"):
            await make_scorer_factory(opened.jobs, allow_functions=False)(job)


async def test_a_pattern_that_takes_long_does_not_hold_up_the_event_loop(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as opened:
        job = await create(opened, ROWS[:1], "up/say-" + "a" * 60)
        await opened.manager.run(job.id)
        (scorer,) = parse_scorers([{"type": "regex", "pattern": r"^(a|aa|a?a)+$(?<=b)"}], allow_functions=False)
        page = await opened.list_results(job)
        scoring = asyncio.create_task(JobScorer([(1, scorer)]).score_page(page))
        longest, last = 0.0, time.monotonic()
        while not scoring.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    ((_, found),) = await scoring
    assert found.explanation == "took longer than 0.25 s for a pattern, or 1 s for all scorers"
    assert longest < 0.15, f"the loop stood still for {longest:.3f} s"
