"""Decisions by stored jobs: their measures gathered, then judged in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.threads import run_in_thread
from fanout.evaluate.decisions.options import GateOptions, PlanOptions
from fanout.evaluate.report.gather import gather
from fanout.evaluate.report.measures import JobMeasures
from fanout.jobs.job import Job
from fanout.store.jobs.job_store import JobStore

# Imported only where something is decided: they load numpy and scipy.
if TYPE_CHECKING:
    from fanout.evaluate.decisions.gate import GateDecision
    from fanout.evaluate.decisions.plan import Plan


async def gate_job(store: JobStore, job: Job, options: GateOptions, cluster_column: str | None = None) -> GateDecision:
    """Return the verdict on a candidate of a job; see `judge_gate`.

    Raises:
        RequestError: no such model, metric or column, or a package of the extra `evaluate` is missing.
        StoreError: the database cannot be read.
    """
    return await run_in_thread("reports", _gate, await gather(store, job, cluster_column), options)


async def plan_job(store: JobStore, job: Job, options: PlanOptions) -> Plan:
    """Return the plan from a pilot job; raises like `gate_job`. See `plan_from_pilot`."""
    return await run_in_thread("reports", _plan, await gather(store, job), options)


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
