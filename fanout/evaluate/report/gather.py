"""Gathering of a job's measures from the store, a few thousand units at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import dump
from fanout.core.threads import run_in_thread
from fanout.evaluate.judging.judging import is_judge, list_judge_jobs, parse_judge, read_verdicts, sum_judge_costs
from fanout.evaluate.report.measures import UNKNOWN, JobMeasures, JudgeMeasures, ModelMeasures
from fanout.jobs.job import Job
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import MeasureRow, ScorerRow
from fanout.store.usage import ANSWERED
from fanout.store.votes import Subject, VoteRow

UNITS_AT_ONCE = 4_000
"""Units read in one transaction; a page of items has about as many."""
VOTES_AT_ONCE = 1_000
Scores = Sequence[tuple[int, int, int, int, float | None]]
PEOPLE = ScorerRow(0, "people", "people/1", "{}", is_bounded=True, is_higher_better=True)
"""The scorer whose scores are people's votes on single answers; those of a job are numbered from 1."""


async def gather(store: JobStore, job: Job, cluster_column: str | None = None) -> JobMeasures:
    """Return the measures of a job.

    Args:
        store: of the jobs.
        job: any, whether it has ended or not.
        cluster_column: the rows' column that names the group of an item, where items hang together.

    Raises:
        RequestError: no row has that column.
        StoreError: the database cannot be read.
    """
    scorers = await store.scores.list_scorers(job.number)
    collector = _Collector(job, scorers)
    step = max(1, UNITS_AT_ONCE * job.items // max(job.units, 1)) if job.units else UNITS_AT_ONCE
    for first in range(0, job.items, step):
        rows = await store.results.list_measures(job.number, first, first + step)
        scores = await store.scores.list_values(job.number, first, first + step) if scorers else ()
        # In a thread: parsing thousands of records would hold up everything else.
        await run_in_thread("reports", collector.add, rows, scores)
    clusters = await _read_clusters(store, job, cluster_column) if cluster_column else None
    votes = await _read_votes(store, job)
    labels = _average_labels(votes)
    judges = [await _read_judge(store, job, row) for row in scorers if is_judge(row)]
    # A judge of pairs has preferences and no scores.
    scorers = [row for row in scorers if not any(judge.row == row and judge.task == "pair" for judge in judges)]
    if labels:
        scorers = [*scorers, collector.add_labels(labels)]
    choices = [vote for vote in votes if vote.choice is not None]
    models = list(collector.models.values())
    return JobMeasures(job.as_left, models, scorers, clusters, cluster_column, choices, labels, judges)


class _Collector:
    """The columns of a job's models while they are filled."""

    def __init__(self, job: Job, scorers: Sequence[ScorerRow]) -> None:
        self._scorers = [row.scorer for row in scorers]
        self._by_label = job.spec.kind != "rows"  # requests name their own models, each line others
        self.models: dict[int | str, ModelMeasures] = {}
        taken: set[str] = set()
        for key, row in job.fingerprint.items() if not self._by_label else ():
            entry, _, label = key.partition(": ")
            name = label if label not in taken else f"{label} ({int(entry) + 1})"
            taken.add(name)
            self.models[int(entry)] = self._start(name, row)
            self.models[int(entry)].entry = int(entry)

    def _start(self, name: str, row: Mapping[str, object] | None = None) -> ModelMeasures:
        model = ModelMeasures(name)
        if row:
            sent = row.get("sent")
            model.provider, model.upstream_model = str(row["provider"]), str(row["upstream_model"])
            model.parameters = dict(sent) if isinstance(sent, Mapping) else {}
        for scorer in self._scorers:
            model.scores[scorer] = type(model.cost_usd)("d")
        return model

    def add(self, rows: Sequence[MeasureRow], scores: Scores) -> None:
        """Add the units of some items, and their scores."""
        values: dict[tuple[int, int, int], dict[int, float | None]] = {}
        for item, entry, repeat, scorer, value in scores:
            values.setdefault((item, entry, repeat), {})[scorer] = value
        for row in rows:
            key = row.model if self._by_label else row.entry
            model = self.models.get(key)
            if model is None:
                model = self.models[key] = self._start(row.model)
            _add_unit(model, row, values.get(row[:3], {}))

    def add_labels(self, labels: Mapping[tuple[int, int, int], float]) -> ScorerRow:
        """Add people's scores of single answers as a scorer of their own."""
        for model in self.models.values():
            places = zip(model.items, model.repeats, strict=True)
            values = (
                labels.get((item, -1 if model.entry is None else model.entry, repeat), UNKNOWN) for item, repeat in places
            )
            model.scores[PEOPLE.scorer] = type(model.cost_usd)("d", values)
        return PEOPLE


def _add_unit(model: ModelMeasures, row: MeasureRow, scores: Mapping[int, float | None]) -> None:
    timing, ignored, adjusted = (value or {} for value in from_json(row.figures))
    answered = row.result == ANSWERED
    model.items.append(row.item)
    model.repeats.append(row.repeat)
    model.answered.append(answered)
    model.cost_usd.append(_known(row.cost_usd) if answered else UNKNOWN)
    model.queued_s.append(timing.get("queued_s", 0.0))
    for column, name in ((model.ttft_s, "first_token_s"), (model.call_s, "call_s"), (model.total_s, "total_s")):
        column.append(_known(timing.get(name)) if answered else UNKNOWN)  # failures are no latency of answers
    model.output_tokens.append(_known(row.output_tokens) if answered else UNKNOWN)
    if row.cached_from is None and row.input_tokens is not None and row.cached_tokens is not None:
        model.input_tokens += row.input_tokens
        model.cached_tokens += row.cached_tokens
    for scorer, column in model.scores.items():
        column.append(_known(scores.get(scorer)))
    if not answered:
        model.failures[row.result] += 1
    model.reused += row.cached_from is not None
    model.ignored.update(dict.fromkeys(ignored, 1))
    model.adjusted.update(dict.fromkeys(adjusted, 1))


def _known(value: float | None) -> float:
    return UNKNOWN if value is None else value


async def _read_votes(store: JobStore, job: Job) -> Sequence[VoteRow]:
    """Return all votes on a job."""
    votes: list[VoteRow] = []
    before = None
    while page := await store.votes.list_votes(limit=VOTES_AT_ONCE, before=before, subject=Subject(job_id=job.id)):
        votes += page
        before = page[-1].number
    return votes


def _average_labels(votes: Sequence[VoteRow]) -> Mapping[tuple[int, int, int], float]:
    """Return people's scores by item, entry and repeat; of several people's, the mean."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for vote in votes:
        if vote.score is not None:
            found.setdefault((vote.item, vote.entry_a, vote.repeat_a), []).append(vote.score)
    return {place: sum(scores) / len(scores) for place, scores in found.items()}


async def _read_judge(store: JobStore, job: Job, row: ScorerRow) -> JudgeMeasures:
    judge = await run_in_thread("reports", parse_judge, row)
    cost_usd = await sum_judge_costs(store, await list_judge_jobs(store, job, row))
    return JudgeMeasures(row, judge.model, judge.task, judge.order, await read_verdicts(store, job, row), cost_usd)


async def _read_clusters(store: JobStore, job: Job, column: str) -> Mapping[int, str]:
    """Return the group of each item; an item without one is a group of its own."""
    clusters: dict[int, str] = {}
    after, named = -1, 0
    while page := await store.inputs.list_items(job.number, after, UNITS_AT_ONCE):
        after = page[-1].item
        for item in page:
            value = (from_json(item.body).get("values") or {}).get(column)
            named += value is not None
            clusters[item.item] = f"\0{item.item}" if value is None else dump(value).decode()
    if not named:
        raise RequestError([Fault("cluster", f"no row has a column `{column}`")])
    return clusters
