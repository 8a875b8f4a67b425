"""A job made of imported samples: it has ended, so that it is scored, labelled, judged and reported without a call."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import dump
from fanout.core.schema import Answer, Choice, Completion, Failure, Timing
from fanout.core.usage import Usage, WorkTotals, keep_plausible_usage
from fanout.evaluate.importing.samples import ImportedSamples, Sample
from fanout.jobs.job import FINGERPRINT_JSON, JobSpec
from fanout.jobs.process_identity import identify_process
from fanout.jobs.stored_outcome import StoredOutcome, failure_to_json
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import UnitEnded
from fanout.store.jobs.records import FailurePolicy, InputItem, JobChange, NewJobRow, NewScorer, Unit, UnitScore
from fanout.store.usage import ANSWERED

CHUNK = 500
LOWER_IS_BETTER = ("perplexity", "bits_per_byte", "brier", "ter", "wer", "cer", "loss", "error")
"""Parts of metrics' names whose least value is the best."""
Key = tuple[str, tuple[str, str], int]


def merge_samples(samples: Sequence[Sample]) -> Mapping[Key, Sample]:
    """Return one sample for each model, item and repeat: filters of one answer are scores of it, not further answers."""
    merged: dict[Key, Sample] = {}
    for sample in samples:
        key = (sample.model, sample.item, sample.repeat)
        first = merged.get(key)
        merged[key] = sample if first is None else replace(first, scores={**first.scores, **sample.scores})
    return merged


async def store_samples(
    store: JobStore, imported: ImportedSamples, *, name: str | None, files: Sequence[str], failed: FailurePolicy
) -> str:
    """Store the samples as a job that has ended, and return its id.

    Raises:
        RequestError: there is none.
        StoreError: the database cannot be written.
    """
    samples = merge_samples(imported.samples)
    if not samples:
        raise RequestError([Fault("files", "hold no sample")])
    items = {item: number for number, item in enumerate(dict.fromkeys(sample.item for sample in samples.values()))}
    models = {model: entry for entry, model in enumerate(dict.fromkeys(sample.model for sample in samples.values()))}
    repeats = 1 + max(sample.repeat for sample in samples.values())
    spec = JobSpec(
        models=tuple({"model": model} for model in models),
        repeats=repeats,
        failed=failed,
        name=name,
        input={"name": ", ".join(files)[:500], "imported_from": imported.source},
    )
    fingerprint = {
        f"{entry}: {model}": {"model": model, "provider": imported.source, "upstream_model": model}
        for model, entry in models.items()
    }
    job_id = f"job_{uuid.uuid4().hex}"
    number, epoch = await store.create(NewJobRow(job_id, time.time(), "", spec.to_json(), "{}"), identify_process())
    try:
        await _add_items(store, number, epoch, samples, items)
        scorers = await _declare_scorers(store, number, imported)
        running: JobChange = {
            "state": "running",
            "items": len(items),
            "units": len(items) * len(models) * repeats,
            "fingerprint": FINGERPRINT_JSON.dump_json(fingerprint).decode(),
            "started": time.time(),
        }
        # If another process has discarded the job meanwhile, the journal refuses what follows.
        await store.update(number, running, epoch=epoch)
        ended = (
            _end_unit(Unit(number, items[sample.item], models[sample.model], sample.repeat), epoch, sample, scorers)
            for sample in samples.values()
        )
        while some := list(islice(ended, CHUNK)):
            await asyncio.gather(*(store.journal.put(one) for one in some))
            await store.leases.renew(number, epoch, None)
    except BaseException:
        await asyncio.shield(store.discard(number))
        raise
    await store.update(number, {"state": "done", "ended": time.time(), "owner": None}, epoch=epoch)
    return job_id


async def _add_items(
    store: JobStore, number: int, epoch: int, samples: Mapping[Key, Sample], items: Mapping[tuple[str, str], int]
) -> None:
    first = {sample.item: sample for sample in reversed(list(samples.values()))}
    rows = (_to_item(place, first[item]) for item, place in items.items())
    while some := list(islice(rows, CHUNK)):
        await store.inputs.add(number, some, epoch)
        await asyncio.sleep(0)


def _to_item(place: int, sample: Sample) -> InputItem:
    task, number = sample.item
    body = {"prompt": sample.prompt, "reference": sample.reference, "values": {"task": task}}
    kept = {name: value for name, value in body.items() if value is not None}
    return InputItem(place, place + 1, f"{task}/{number}"[:512], dump(kept).decode())


async def _declare_scorers(store: JobStore, number: int, imported: ImportedSamples) -> Mapping[str, int]:
    ranges: dict[str, tuple[float, float]] = {}
    for sample in imported.samples:
        for name, value in sample.scores.items():
            low, high = ranges.get(name, (value, value))
            ranges[name] = (min(low, value), max(high, value))
    declared = [
        NewScorer(
            name,
            f"{imported.source}/{name}",
            dump({"type": "imported", "from": imported.source, "metric": name}).decode(),
            is_bounded=low >= 0 and high <= 1,
            is_higher_better=not any(part in name.lower() for part in LOWER_IS_BETTER),
        )
        for name, (low, high) in ranges.items()
    ]
    numbers = await store.scores.declare(number, declared)
    return dict(zip(ranges, numbers, strict=True))


def _end_unit(unit: Unit, epoch: int, sample: Sample, scorers: Mapping[str, int]) -> UnitEnded:
    known = sample.output_tokens is not None
    usage = keep_plausible_usage(Usage(sample.input_tokens, sample.output_tokens)) if known else None
    totals = WorkTotals()
    failure = None
    if sample.text is None:
        failure = Failure("internal", sample.error or "it failed", code="imported_failure")
        outcome = StoredOutcome(sample.model, sample.model, None, sample.model, failure=failure)
        totals.add_failure()
    else:
        completion = Completion((Choice(Answer(sample.text), None),), usage)
        timing = Timing(call_s=sample.seconds, total_s=sample.seconds or 0.0)
        outcome = StoredOutcome(sample.model, sample.model, None, sample.model, completion, timing=timing)
        totals.add_answer(usage, None)
    return UnitEnded(
        *(unit, 0, epoch, time.time(), sample.model, ANSWERED if failure is None else failure.kind, outcome.to_json(), totals),
        failure=failure_to_json(failure) if failure else None,
        text=sample.text,
        scores=[UnitScore(scorers[name], value) for name, value in sample.scores.items()] if failure is None else (),
    )
