"""Judging of a job, in rounds, each a job of its own: what has not been asked yet, and, once more, what could not be read.

The first round asks about all answers; later ones are for unreadable verdicts, and for answers that came by a retry. The judges
of a job are scorers of it, and their jobs have ids that follow from the job's and the judge's. So whoever continues, in
whichever process, finds what was begun, and no question is sent twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import IO, TYPE_CHECKING

from pydantic_core import from_json

from fanout.core.errors import RequestError, StoreError
from fanout.core.json_text import dump
from fanout.core.threads import run_in_thread
from fanout.core.usage import sum_known
from fanout.evaluate.judging.questions import Question, list_questions, write_question
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.jobs.copies import list_copies
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec, find_job, read_counts
from fanout.jobs.manager import JobManager
from fanout.jobs.result_records import describe_input
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.observability.logs import log
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Place, ScorerRow, UnitScore
from fanout.store.jobs.results import ItemResults

if TYPE_CHECKING:
    from fanout.evaluate.scorers.judge import JudgeScorer

MAX_SENT = 2
"""Times that a question is sent at most: a judge that fails to end with a verdict twice would do so again."""
MAX_ROUNDS = 1_000
ITEMS_AT_ONCE = 64
SCORES_AT_ONCE = 1_000
MAX_SPOOLED_BYTES = 8 * 2**20
"""Questions that are kept in memory until their job is created; more go to a temporary file."""
MAX_RECOVERED_JOBS = 1_000
JUDGE = "judge"
Verdicts = dict[str, tuple[float | None, str | None]]
"""Value and explanation by a question's name."""


def name_judge_job(job_id: str, version: str, round_: int) -> str:
    """Return the id of the job in which a judge judges another job."""
    digest = hashlib.sha256(f"{job_id}\0{version}\0{round_}".encode()).hexdigest()
    return f"job_{digest[:32]}"


def is_judge(row: ScorerRow) -> bool:
    """Return whether a job's scorer is a judge."""
    return bool(from_json(row.declaration).get("type") == JUDGE)


def parse_judge(row: ScorerRow) -> JudgeScorer:
    """Return the judge that a job's scorer declares."""
    from fanout.evaluate.scorers.judge import JudgeScorer

    # Never a function: a declaration in the store must not make this process run code.
    (judge,) = parse_scorers([from_json(row.declaration)], allow_functions=False)
    assert isinstance(judge, JudgeScorer)
    return judge


async def list_judge_jobs(store: JobStore, job: Job, row: ScorerRow) -> Sequence[Job]:
    """Return the jobs in which a judge judges a job, in order."""
    found: list[Job] = []
    while len(found) < MAX_ROUNDS and (known := await store.find(name_judge_job(job.id, row.version, len(found) + 1))):
        found.append(Job.from_row(known))
    return found


class Judging:
    """Judging of a store's jobs."""

    def __init__(self, store: JobStore, manager: JobManager) -> None:
        self._store, self._manager = store, manager

    async def advance(self, job: Job) -> Job | None:
        """Return the judge's job that is to be run next, created if need be; `None` where nothing is left to judge.

        A job that has not ended is not judged.

        Raises:
            RequestError: the judge cannot be called.
            StoreError: the database cannot be used.
        """
        if job.state != "done" or job.spec.judging:
            return None
        for row in await self._store.scores.list_scorers(job.number):
            if is_judge(row) and (found := await self._advance_judge(job, row)):
                return found
        return None

    async def _advance_judge(self, job: Job, row: ScorerRow) -> Job | None:
        judge = parse_judge(row)
        rounds = await list_judge_jobs(self._store, job, row)
        # One round at a time: the next one repeats what this one leaves unread, which is known at its end.
        if rounds and rounds[-1].state != "done":
            return rounds[-1]
        if len(rounds) < MAX_ROUNDS and (created := await self._create_round(job, row, judge, rounds)):
            return created
        if judge.task == "score":
            await self._store_scores(job, row)
        return None

    async def _create_round(self, job: Job, row: ScorerRow, judge: JudgeScorer, earlier: Sequence[Job]) -> Job | None:
        """Create the judge's next job; `None` where there is nothing to ask."""
        settled = await self._list_settled(job, row, earlier)
        round_ = len(earlier) + 1
        with tempfile.SpooledTemporaryFile(MAX_SPOOLED_BYTES) as spool:
            writer = _QuestionWriter(job, row, judge, settled, spool)
            after = -1
            while page := await self._store.results.list_items(job.number, after, ITEMS_AT_ONCE):
                after = page[-1][0].item
                # In a thread: parsing records and writing long prompts would hold up everything else.
                await run_in_thread("scoring", writer.write, page)
            if not writer.count:
                return None
            spool.seek(0)
            job_id = name_judge_job(job.id, row.version, round_)
            spec = _build_spec(job, row, judge, round_, await sum_judge_costs(self._store, earlier) or 0.0)
            try:
                created = await self._manager.create(spec, _read_rows(spool), account_id=job.account_id, job_id=job_id)
            except StoreError:
                # Another process may have created it at the same moment.
                if known := await self._store.find(job_id):
                    return Job.from_row(known)
                raise
        log.info("judging.started", job=job.id, judge=row.label, judge_job=created.id, questions=writer.count)
        return created

    async def _list_settled(self, job: Job, row: ScorerRow, earlier: Sequence[Job]) -> set[str]:
        """Return the questions that are not sent again: those whose verdict was read, and those sent often enough."""
        sent: Counter[str] = Counter()
        for judge_job in earlier:
            async for name, _ in _list_questions(self._store, judge_job):
                sent[name] += 1
        verdicts = await read_verdicts(self._store, job, row) if earlier else {}
        return {name for name, count in sent.items() if count >= MAX_SENT or verdicts[name][0] is not None}

    async def _store_scores(self, job: Job, row: ScorerRow) -> None:
        """Write a judge's scores among those of the job; those that have a value stay as they are."""
        scores: list[tuple[Place, UnitScore]] = []
        for name, (value, explanation) in (await read_verdicts(self._store, job, row)).items():
            question = Question.from_custom_id(name)
            if not question.is_again:
                ((entry, repeat),) = question.answers
                scores.append(((question.item, entry, repeat), UnitScore(row.scorer, value, explanation)))
        # What was unread may have been read since, in a round whose failed calls were repeated.
        await self._store.scores.forget_unknown(job.number, row.scorer)
        await self._store.scores.add(job.number, scores)

    async def continue_after(self, job: Job) -> None:
        """Create the judge's job that the end of a job allows: of the job itself, or of the one that it judges."""
        if job.state != "done":
            return
        try:
            judged = await find_job(self._store, job.spec.judging["job"]) if job.spec.judging else job
            if await self.advance(judged):
                # Else the new job would wait for the supervisor's next look.
                self._manager.supervisor.notify()
        except (RequestError, StoreError) as error:
            # Logged, not raised: the judged job has ended well, and its answers are there.
            log.error("judging.failed", job=job.id, reason=str(error))

    async def recover(self) -> None:
        """Continue what a process that died between the end of a job and its judging has left."""
        # A server whose database is gone for a moment must start all the same; what is left is judged at the next start.
        with suppress(StoreError):
            for row in await self._store.list_jobs(limit=MAX_RECOVERED_JOBS, states=("done",)):
                job = Job.from_row(row)
                if job.spec.judging or any(scorer.get("type") == JUDGE for scorer in job.spec.scorers):
                    await self.continue_after(job)


@asynccontextmanager
async def open_judging(store: JobStore, manager: JobManager) -> AsyncGenerator[Judging]:
    """Open judging that follows the jobs which end in this process."""
    judging = Judging(store, manager)
    manager.executor.on_end = judging.continue_after
    task = asyncio.create_task(judging.recover(), name="judging")
    try:
        yield judging
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read_verdicts(store: JobStore, job: Job, row: ScorerRow) -> Verdicts:
    """Return what a judge has decided so far, by question: of several rounds the first that could be read."""
    verdicts: Verdicts = {}
    for judge_job in await list_judge_jobs(store, job, row):
        async for name, verdict in _list_questions(store, judge_job):
            if verdicts.get(name, (None, None))[0] is None:
                verdicts[name] = verdict
    return verdicts


async def _list_questions(store: JobStore, judge_job: Job) -> AsyncGenerator[tuple[str, tuple[float | None, str | None]]]:
    """Yield the questions of a round, each with its verdict."""
    for first in range(0, judge_job.items, SCORES_AT_ONCE):
        names = await store.inputs.list_custom_ids(judge_job.number, first, first + SCORES_AT_ONCE)
        scores = await store.scores.read(judge_job.number, first, first + SCORES_AT_ONCE - 1)
        for item, name in names:
            found = scores.get((item, 0, 0))
            yield name, (found[0].value, found[0].explanation) if found else (None, "the judge has not answered")


class _QuestionWriter:
    """The questions about a job's answers, written as the rows of the judge's job."""

    def __init__(self, job: Job, row: ScorerRow, judge: JudgeScorer, settled: set[str], spool: IO[bytes]) -> None:
        self._judge, self._settled, self._spool = judge, settled, spool
        self._seed = f"{job.id}\0{row.version}"
        self._copies = list_copies(job.fingerprint)
        self.count = 0

    def write(self, page: Sequence[ItemResults]) -> None:
        """Write the questions about some items."""
        for item, ended in page:
            completions = {place: StoredOutcome.from_json(unit.record).completion for place, unit in ended.items()}
            texts = {
                place: found.choices[0].message.shown_text if found.choices else ""
                for place, found in sorted(completions.items())
                if found is not None and place[0] not in self._copies
            }
            shown = describe_input(from_json(item.body))
            judge = self._judge
            if judge.rubric_column is not None:
                # A row without a rubric of its own is not judged.
                rubric = (shown.get("values") or {}).get(judge.rubric_column)
                if not isinstance(rubric, str) or not rubric:
                    continue
                judge = judge.model_copy(update={"rubric": rubric})
            for question in list_questions(item.item, list(texts), judge, self._seed):
                if question.custom_id not in self._settled:
                    prompt = write_question(question, judge, shown, texts)
                    row = {"custom_id": question.custom_id, "messages": [{"role": "user", "content": prompt}]}
                    self._spool.write(dump(row) + b"\n")
                    self.count += 1


async def sum_judge_costs(store: JobStore, judge_jobs: Sequence[Job]) -> float | None:
    """Return the known US dollars of a judge's rounds; `None`: none is known."""
    counts = await read_counts(store, judge_jobs)
    return sum_known(totals.cost_usd for count in counts for totals in count.values())


def _build_spec(job: Job, row: ScorerRow, judge: JudgeScorer, round_: int, spent_usd: float) -> JobSpec:
    parameters = {"max_tokens": judge.max_tokens, "temperature": judge.temperature}
    given = {name: value for name, value in parameters.items() if value is not None}
    return JobSpec(
        models=({"model": judge.model, **given},),
        # Of all rounds together. A job that is left nothing says so, and goes on if it is resumed with more.
        max_cost_usd=None if judge.max_cost_usd is None else max(judge.max_cost_usd - spent_usd, 0.0),
        scorers=({"type": "verdict", "task": judge.task},),
        name=f"{row.label} of {job.spec.name or job.id}"[:256],
        judging={"job": job.id, "scorer": row.label, "round": str(round_)},
        unattended=job.spec.unattended,
        key_id=job.spec.key_id,
    )


def _read_rows(spool: IO[bytes]) -> Iterator[InputRow]:
    for line, text in enumerate(spool, 1):
        yield InputRow(line, json.loads(text))


async def summarize_scores(
    store: JobStore, job: Job
) -> tuple[Sequence[ScorerRow], Mapping[int, tuple[int, int]], Mapping[int, Sequence[str]]]:
    """Return the scorers of a job, by number how many answers each has scored, and the jobs of those that are judges."""
    rows, counts = await store.scores.list_scorers(job.number), await store.scores.count(job.number)
    judges = {row.scorer: await list_judge_jobs(store, job, row) for row in rows if is_judge(row)}
    return rows, counts, {number: [found.id for found in jobs] for number, jobs in judges.items()}
