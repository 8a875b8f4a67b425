"""Scoring in threads of its own: of answers as a job's units end, and of stored results.

Scores of one version are given once and never again, so scoring may be cut off at any moment and repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic_core import from_json

from fanout.core.threads import run_in_thread
from fanout.evaluate.scoring.declarations import parse_scorers, to_new_scorer
from fanout.evaluate.stopping.opening import open_watch
from fanout.jobs.answer_scorer import AnswerScorerFactory
from fanout.jobs.job import Job
from fanout.jobs.stopping import StoppingWatch
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Place, ResultFilter, ResultRow, UnitScore

if TYPE_CHECKING:
    from fanout.evaluate.scorers import Scorer, ScorerInput

PAGE_ROWS = 512
"""Answers read from the store at once."""
STEP_S = 0.1
"""CPU time after which other jobs have their turn, and one that is cancelled ends."""
OnProgress = Callable[[int], None]
"""Called with the number of answers looked at so far."""


class JobScorer:
    """The scorers of one job, with their numbers."""

    def __init__(self, scorers: Sequence[tuple[int, Scorer]]) -> None:
        # Judges judge in jobs of their own: see `evaluate/judging`.
        scorers = [(number, scorer) for number, scorer in scorers if scorer.type != "judge"]
        self._scorers = scorers
        self._versions = {(scorer.label, scorer.version): (number, scorer) for number, scorer in scorers}
        self.watch: StoppingWatch | None = None
        # One answer of a job at a time: a job whose answers take long would else have all threads, and all jobs wait for it.
        self._turn = asyncio.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be scored here."""
        return not self._scorers

    async def score(self, body: str, outcome: StoredOutcome) -> Sequence[UnitScore]:
        """Return the scores of one answer, in a thread."""
        async with self._turn:
            return await run_in_thread("scoring", self._score, body, outcome, self._scorers)

    async def score_page(self, page: Sequence[ResultRow]) -> Sequence[tuple[Place, UnitScore]]:
        """Return the scores that the answers of a page lack, in a thread, step by step."""
        found: list[tuple[Place, UnitScore]] = []
        # Taken from the end, where that costs nothing.
        rows = list(reversed(page))
        while rows:
            found += await run_in_thread("scoring", self._score_step, rows)
        return found

    def _score_step(self, rows: list[ResultRow]) -> list[tuple[Place, UnitScore]]:
        """Score the last rows of a list, and take them off it, until the time of a step is over."""
        found: list[tuple[Place, UnitScore]] = []
        deadline = time.thread_time() + STEP_S
        while rows and (not found or time.thread_time() < deadline):
            row = rows.pop()
            given = {(score.label, score.version) for score in row.scores}
            lacking = [scorer for version, scorer in self._versions.items() if version not in given]
            if lacking:
                scores = self._score(row.body, StoredOutcome.from_json(row.record), lacking)
                found += [(row.place, score) for score in scores]
        return found

    def _score(self, body: str, outcome: StoredOutcome, scorers: Sequence[tuple[int, Scorer]]) -> list[UnitScore]:
        from fanout.evaluate.limits import limit_time
        from fanout.evaluate.scoring.answers import to_scorer_input

        given = to_scorer_input(from_json(body), outcome)
        with limit_time():
            return [_score_one(number, scorer, given) for number, scorer in scorers]


def _score_one(number: int, scorer: Scorer, given: ScorerInput) -> UnitScore:
    try:
        score = scorer.score(given)
    except Exception as error:  # one answer that a scorer stumbles over must not end the job
        log.warning("scorer.failed", scorer=scorer.label, reason=f"{type(error).__name__}: {error}")
        return UnitScore(number, None, f"the scorer failed: {type(error).__name__}: {error}")
    return UnitScore(number, score.value, score.explanation)


def make_scorer_factory(store: JobStore, *, allow_functions: bool) -> AnswerScorerFactory:
    """Return the factory by which jobs open their scorers.

    Args:
        store: of the jobs.
        allow_functions: whether jobs may name Python functions.
    """

    async def open_scorer(job: Job) -> JobScorer:
        # In a thread: the packages of some scorers take long to import.
        scorers = await run_in_thread("setup", parse_scorers, job.spec.scorers, allow_functions=allow_functions)
        opened = await declare_scorers(store, job.number, scorers)
        opened.watch = await open_watch(store, job)
        return opened

    return open_scorer


async def declare_scorers(store: JobStore, number: int, scorers: Sequence[Scorer]) -> JobScorer:
    """Make these the scorers of a job, those of their labels, and return them ready for use."""
    numbers = await store.scores.declare(number, [to_new_scorer(scorer) for scorer in scorers])
    return JobScorer(list(zip(numbers, scorers, strict=True)))


async def score_results(store: JobStore, number: int, scorers: Sequence[Scorer], on_progress: OnProgress | None = None) -> None:
    """Score the stored answers of a job, page by page; no model is called.

    Args:
        store: of the jobs.
        number: the job.
        scorers: their scores of earlier versions stay stored, but no longer count.
        on_progress: called after each page.

    Raises:
        StoreError: the database cannot be used; a repetition goes on where it stopped.
    """
    job_scorer = await declare_scorers(store, number, scorers)
    if job_scorer.is_empty:
        return
    after, seen = None, 0
    answers = ResultFilter(failed=False)
    while page := await store.results.list_results(number, after=after, limit=PAGE_ROWS, filter_=answers):
        after, seen = page[-1].place, seen + len(page)
        await store.scores.add(number, await job_scorer.score_page(page))
        if on_progress:
            on_progress(seen)
