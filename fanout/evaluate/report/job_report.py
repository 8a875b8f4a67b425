"""Reports of stored jobs: gathered, then computed in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.threads import run_in_thread
from fanout.evaluate.report.gather import gather
from fanout.evaluate.report.measures import JobMeasures
from fanout.jobs.job import Job
from fanout.store.jobs.job_store import JobStore

# Imported only where a report is made: it loads numpy, scipy and statsmodels, which take a second.
if TYPE_CHECKING:
    from fanout.evaluate.report.report import Report


async def report_job(store: JobStore, job: Job, cluster_column: str | None = None) -> Report:
    """Return the report of a job; see `gather`.

    Raises:
        RequestError: no row has the column, or a package of the extra `evaluate` is missing.
        StoreError: the database cannot be read.
    """
    measures = await gather(store, job, cluster_column)
    return await run_in_thread("reports", _build, measures)


def _build(measures: JobMeasures) -> Report:
    try:
        from fanout.evaluate.report.report import build_report
    except ImportError as error:
        sentence = f"needs {explain_missing_extra(error.name or 'scipy', 'evaluate')}"
        raise RequestError([Fault("report", sentence)]) from None
    return build_report(measures)
