"""Decisions by stored jobs: their measures gathered, then judged in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.threads import run_in_thread
from fanout.evaluate.decisions.options import GateOptions, PlanOptions, check_options
from fanout.evaluate.decisions.pairing import ChosenPair, RowIdentity, describe_pairs, merge_jobs, pair_rows, read_rows
from fanout.evaluate.report.gather import gather
from fanout.evaluate.report.measures import JobMeasures
from fanout.jobs.job import Job
from fanout.store.jobs.job_store import JobStore

# Imported only where something is decided: they load numpy and scipy.
if TYPE_CHECKING:
    from fanout.evaluate.decisions.gate import GateDecision
    from fanout.evaluate.decisions.plan import Plan


async def gate_job(
    store: JobStore, job: Job, options: GateOptions, cluster_column: str | None = None, earlier: Job | None = None
) -> GateDecision:
    """Return the verdict on a candidate of a job; see `judge_gate`.

    Args:
        store: of the jobs.
        job: has the candidate.
        options: name both models.
        cluster_column: groups items which hang together.
        earlier: has the baseline; `None`: the same job.

    Raises:
        RequestError: no such model, metric or column, rows that are not those of the earlier job, or a package
            of the extra `evaluate` is missing.
        StoreError: the database cannot be read.
    """
    measures = await gather(store, job, cluster_column)
    if earlier is None:
        return await run_in_thread("reports", _gate, measures, options)
    chosen = ChosenPair(options.model, options.baseline, options.metric)
    merged, name, notes = await _pair_jobs(store, measures, earlier, chosen)
    found = await run_in_thread("reports", _gate, merged, replace(options, baseline=name))
    sentence = "; ".join((found.verdict.sentence, *notes))
    return replace(found, options=options, verdict=replace(found.verdict, sentence=sentence), notes=[*found.notes, *notes])


async def plan_job(store: JobStore, job: Job, options: PlanOptions, earlier: Job | None = None) -> Plan:
    """Return the plan from a pilot job; arguments and errors as of `gate_job`. See `plan_from_pilot`."""
    check_options(options)
    measures = await gather(store, job)
    if earlier is None or options.model is None or options.baseline is None:
        return await run_in_thread("reports", _plan, measures, options)
    chosen = ChosenPair(options.model, options.baseline, options.metric)
    merged, name, notes = await _pair_jobs(store, measures, earlier, chosen)
    found = await run_in_thread("reports", _plan, merged, replace(options, baseline=name))
    pairs = [replace(pair, note="; ".join(filter(None, (pair.note, *notes))) or None) for pair in found.pairs]
    return replace(found, pairs=pairs)


async def _pair_jobs(
    store: JobStore, measures: JobMeasures, earlier: Job, chosen: ChosenPair
) -> tuple[JobMeasures, str, Sequence[str]]:
    """Return two jobs as one, the baseline's name in it, and what limits the pairs."""
    rows = await read_rows(store, measures.job), await read_rows(store, earlier)
    others = await gather(store, earlier)
    return await run_in_thread("reports", _merge, measures, others, rows, chosen)


def _merge(
    measures: JobMeasures,
    earlier: JobMeasures,
    rows: tuple[Sequence[RowIdentity], Sequence[RowIdentity]],
    chosen: ChosenPair,
) -> tuple[JobMeasures, str, Sequence[str]]:
    pairs = pair_rows(*rows, earlier.job.id)
    merged, name = merge_jobs(measures, earlier, pairs, chosen)
    return merged, name, describe_pairs(pairs, measures.job.id, earlier.job.id)


def _gate(measures: JobMeasures, options: GateOptions) -> GateDecision:
    try:
        from fanout.evaluate.decisions.gate import judge_gate
    except ImportError as error:
        raise _explain(error) from None
    return judge_gate(measures, options)


def _plan(measures: JobMeasures, options: PlanOptions) -> Plan:
    try:
        from fanout.evaluate.decisions.plan import plan_from_pilot
    except ImportError as error:
        raise _explain(error) from None
    return plan_from_pilot(measures, options)


def _explain(error: ImportError) -> RequestError:
    return RequestError([Fault("evaluation", f"needs {explain_missing_extra(error.name or 'scipy', 'evaluate')}")])
