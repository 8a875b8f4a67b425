"""Opening of the watch on a job: its metric is found, and what has ended already is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.suggestions import did_you_mean
from fanout.core.threads import run_in_thread
from fanout.jobs.copies import list_copies
from fanout.jobs.job import Job, JobSpec, parse_entry_number
from fanout.jobs.stopping import MAX_WATCHED_ITEMS, parse_plan
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import MeasureRow, ScorerRow, Unit, UnitScore
from fanout.store.usage import ANSWERED

# Imported only where a job is watched: they need the extra `evaluate`.
if TYPE_CHECKING:
    from fanout.evaluate.scorers import Scorer
    from fanout.evaluate.stopping.watch import JobWatch

ITEMS_AT_ONCE = 1_000


def check_plan(spec: JobSpec, scorers: Sequence[Scorer]) -> None:
    """Refuse a job that cannot be watched.

    Raises:
        RequestError: it has no such metric, or one that cannot decide.
    """
    if not spec.until_decided:
        return
    plan, known = parse_plan(spec.until_decided), {scorer.label: scorer for scorer in scorers}
    found = known.get(plan.metric)
    faults = []
    if spec.kind != "rows":
        faults.append(Fault("until_decided", "is not for batches, whose requests name models of their own"))
    if found is None:
        hint = did_you_mean(plan.metric, known)
        faults.append(
            Fault("until_decided.metric", f"`{plan.metric[:80]}` is not a scorer of the job{hint}; known: {', '.join(known)}")
        )
    # The e-processes bet on scores within 0 … 1; a judge's come when the job is over.
    elif not found.is_bounded or not found.is_higher_better or found.type == "judge":
        sentence = f"`{plan.metric}` cannot decide while the job runs: name a scorer whose scores lie within 0 … 1"
        faults.append(Fault("until_decided.metric", sentence))
    if plan.margin is not None and not 0 < plan.margin < 1:
        faults.append(Fault("until_decided.margin", f"{plan.margin:g} is not allowed: between 0 and 1"))
    if not 0 < plan.alpha < 1:
        faults.append(Fault("until_decided.alpha", f"{plan.alpha:g} is not allowed: between 0 and 1"))
    if faults:
        raise RequestError(faults)


async def open_watch(store: JobStore, job: Job) -> JobWatch | None:
    """Return the watch on a job that is to stop when it is decided, with what has ended so far; else `None`.

    Raises:
        RequestError: the job has fewer than two models, or too many items; or a package of the extra `evaluate` is missing.
        StoreError: the database cannot be read.
    """
    if not job.spec.until_decided:
        return None
    plan = parse_plan(job.spec.until_decided)
    entries = {parse_entry_number(name): name.partition(": ")[2] for name in job.fingerprint}
    copies = list_copies(job.fingerprint)
    models = {entry: name for entry, name in entries.items() if entry not in copies}
    if len(models) < 2 or job.items > MAX_WATCHED_ITEMS:
        sentence = f"needs two models and at most {MAX_WATCHED_ITEMS:,} rows; the job has {len(models)} and {job.items:,}"
        raise RequestError([Fault("until_decided", sentence)])
    rows = {row.label: row for row in await store.scores.list_scorers(job.number)}
    # In a thread: importing scipy would hold up all other requests.
    watch = await run_in_thread("reports", _make_watch, job, models, rows[plan.metric])
    for first in range(0, job.items, ITEMS_AT_ONCE):
        # In pages, each recorded in a thread: a resumed job may have a million units.
        ended = await store.results.list_measures(job.number, first, first + ITEMS_AT_ONCE)
        if ended:
            scores = await store.scores.list_values(job.number, first, first + ITEMS_AT_ONCE)
            await run_in_thread("reports", _record, watch, job.number, ended, scores)
    return watch


def _make_watch(job: Job, models: dict[int, str], row: ScorerRow) -> JobWatch:
    try:
        from fanout.evaluate.stopping.watch import JobWatch
    except ImportError as error:
        sentence = f"needs {explain_missing_extra(error.name or 'scipy', 'evaluate')}"
        raise RequestError([Fault("until_decided", sentence)]) from None
    plan = parse_plan(job.spec.until_decided)
    return JobWatch(plan, job.items, models, job.spec.repeats, job.spec.failed, row.scorer)


def _record(
    watch: JobWatch, number: int, ended: Sequence[MeasureRow], scores: Sequence[tuple[int, int, int, int, float | None]]
) -> None:
    found: dict[tuple[int, int, int], list[UnitScore]] = {}
    for item, entry, repeat, scorer, value in scores:
        found.setdefault((item, entry, repeat), []).append(UnitScore(scorer, value))
    for row in ended:
        place = row[:3]
        watch.record(Unit(number, *place), found.get(place, ()), answered=row.result == ANSWERED)
