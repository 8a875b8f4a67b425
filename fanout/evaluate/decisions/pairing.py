"""Two jobs as one: the candidate of a job and the baseline of an earlier one, paired row by row. Pure but for the reading."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import dump
from fanout.core.threads import run_in_thread
from fanout.evaluate.decisions.choices import check_models, find_metric, get_model
from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.jobs.job import Job
from fanout.jobs.result_records import describe_input
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import InputItem

ITEMS_AT_ONCE = 1_000
MAX_NAMED = 5
"""Rows that a sentence names."""
Number = TypeVar("Number", int, float)


class RowIdentity(NamedTuple):
    """What tells if a row of one job is that of another; digests, because a prompt may be long."""

    custom_id: str | None
    prompt: bytes
    reference: bytes
    values: bytes
    """Empty where the row has no columns."""


@dataclass(slots=True)
class RowPairs:
    """The rows of two jobs that belong together."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Items of the candidate's job and of the baseline's."""
    lone: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """Rows of either job without a partner, by name."""
    other_prompts: int = 0
    """Pairs whose prompts differ."""
    other_references: int = 0
    """Pairs whose references differ."""


async def read_rows(store: JobStore, job: Job) -> Sequence[RowIdentity]:
    """Return what identifies the rows of a job, in their order."""
    rows: list[RowIdentity] = []
    while page := await store.inputs.list_items(job.number, len(rows) - 1, ITEMS_AT_ONCE):
        # In a thread: parsing prompts would hold up everything else.
        rows += await run_in_thread("reports", _identify, page)
    return rows


def _identify(page: Sequence[InputItem]) -> list[RowIdentity]:
    found = []
    for item in page:
        shown = describe_input(from_json(item.body))
        values = shown.get("values")
        digests = (_digest(shown.get("prompt")), _digest(shown.get("reference")), _digest(values) if values else b"")
        found.append(RowIdentity(item.custom_id, *digests))
    return found


def _digest(value: object) -> bytes:
    return hashlib.blake2b(dump(value), digest_size=16).digest()


def pair_rows(rows: Sequence[RowIdentity], earlier: Sequence[RowIdentity], baseline_job: str) -> RowPairs:
    """Return the rows that belong together: by `custom_id`, those without one by their place.

    Args:
        rows: of the candidate's job.
        earlier: of the baseline's.
        baseline_job: id of the latter.

    Raises:
        RequestError: rows that are paired by their place are different ones, or no row has a partner.
    """
    found = RowPairs()
    by_id = {row.custom_id: item for item, row in enumerate(earlier) if row.custom_id is not None}
    taken, strangers = set[int](), list[str]()
    for item, row in enumerate(rows):
        by_place = item if item < len(earlier) and earlier[item].custom_id is None else None
        partner = by_place if row.custom_id is None else by_id.get(row.custom_id)
        if partner is None:
            found.lone[0].append(_name(row, item))
            continue
        other = earlier[partner]
        # A place alone proves nothing: after one row more at the top every row would be compared with its neighbour.
        is_same = row.prompt == other.prompt or bool(row.values and row.values == other.values)
        if row.custom_id is None and not (is_same and row.reference == other.reference):
            strangers.append(_name(row, item))
        taken.add(partner)
        found.pairs.append((item, partner))
        found.other_prompts += row.prompt != other.prompt
        found.other_references += row.reference != other.reference
    found.lone[1].extend(_name(row, item) for item, row in enumerate(earlier) if item not in taken)
    if strangers:
        sentence = f"{_list_names(strangers)} have another prompt or reference in `{baseline_job}`: rows without `custom_id` "
        raise RequestError([Fault("baseline_job", f"{sentence}are paired by their place; give the rows of both jobs one")])
    if not found.pairs:
        raise RequestError([Fault("baseline_job", f"no row of `{baseline_job}` has the `custom_id` of a row of this job")])
    return found


def _name(row: RowIdentity, item: int) -> str:
    return f"row {item + 1}" if row.custom_id is None else f"`{row.custom_id[:80]}`"


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"


def describe_pairs(rows: RowPairs, job_id: str, baseline_job: str) -> list[str]:
    """Return in words what a reader must know of the pairs."""
    sentences = [
        f"{len(names):,} rows of {here} have no partner in {there} and are left out: {_list_names(names)}"
        for names, here, there in zip(rows.lone, (job_id, baseline_job), (baseline_job, job_id), strict=True)
        if names
    ]
    if rows.other_prompts:
        sentences.append(f"{rows.other_prompts:,} of {len(rows.pairs):,} prompts differ between the two jobs")
    if rows.other_references:
        sentences.append(f"{rows.other_references:,} of {len(rows.pairs):,} references differ between the two jobs")
    return sentences


class ChosenPair(NamedTuple):
    """A candidate, a baseline of another job, and the metric by which they are compared."""

    model: str
    baseline: str
    metric: str | None


def merge_jobs(measures: JobMeasures, earlier: JobMeasures, rows: RowPairs, chosen: ChosenPair) -> tuple[JobMeasures, str]:
    """Return measures of the candidate and the baseline on the rows that both jobs have, and the baseline's name there.

    Raises:
        RequestError: a job has no such model or metric, or the two have scored or counted failures in different ways.
    """
    check_models(measures, [("model", chosen.model)])
    check_models(earlier, [("baseline", chosen.baseline)])
    scorer = find_metric(measures, chosen.metric)
    other = find_metric(earlier, scorer.label)
    jobs = measures.job, earlier.job
    faults = []
    if scorer.version != other.version:
        versions = f"`{scorer.version}` here and `{other.version}` in `{jobs[1].id}`"
        faults.append(Fault("metric", f"`{scorer.label}` is {versions}: score both jobs by the same scorer"))
    if jobs[0].spec.failed != jobs[1].spec.failed:
        policies = f"`{jobs[0].spec.failed}` here and `{jobs[1].spec.failed}` in `{jobs[1].id}`"
        faults.append(Fault("baseline_job", f"failed calls count by {policies}: two policies are two questionnaires"))
    if faults:
        raise RequestError(faults)
    places = [{pair[side]: number for number, pair in enumerate(rows.pairs)} for side in (0, 1)]
    candidate = _renumber(get_model(measures, chosen.model), places[0], {scorer.scorer: scorer.scorer})
    baseline = _renumber(get_model(earlier, chosen.baseline), places[1], {other.scorer: scorer.scorer})
    # Both jobs may call it by the same label: the same model with another prompt, or a year later.
    baseline.name = f"{baseline.name} of {jobs[1].id}"
    units = len(rows.pairs) * (jobs[0].spec.repeats + jobs[1].spec.repeats)
    # Of two jobs the one that has not ended: the verdict waits for it.
    state = jobs[0].state if jobs[1].state == "done" else jobs[1].state
    job = replace(jobs[0], items=len(rows.pairs), units=units, state=state)
    clusters = None if measures.clusters is None else {places[0][i]: measures.clusters[i] for i in places[0]}
    return replace(measures, job=job, models=[candidate, baseline], scorers=[scorer], clusters=clusters), baseline.name


def _renumber(model: ModelMeasures, places: Mapping[int, int], scorers: Mapping[int, int]) -> ModelMeasures:
    """Return a model's measures of some items, with other numbers of items and scorers."""
    kept = [number for number, item in enumerate(model.items) if item in places]
    chosen = ModelMeasures(
        name=model.name,
        provider=model.provider,
        upstream_model=model.upstream_model,
        parameters=model.parameters,
        failures=Counter(model.failures),
        entry=model.entry,
    )
    chosen.items = array("q", [places[model.items[number]] for number in kept])
    for name in ("repeats", "answered", "cost_usd", "queued_s", "ttft_s", "call_s", "total_s", "output_tokens"):
        setattr(chosen, name, _pick(getattr(model, name), kept))
    chosen.scores = {scorers[number]: _pick(column, kept) for number, column in model.scores.items() if number in scorers}
    return chosen


def _pick(column: array[Number], kept: Sequence[int]) -> array[Number]:
    return array(column.typecode, [column[number] for number in kept])
