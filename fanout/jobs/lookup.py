"""Lookup of jobs in the store."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.core.errors import Fault, RequestError
from fanout.core.usage import WorkTotals
from fanout.jobs.job import Job, ResultGroup
from fanout.store.jobs.job_store import JobStore


async def find_job(store: JobStore, job_id: str) -> Job:
    """Return the job of an id.

    Raises:
        RequestError: there is none.
    """
    row = await store.find(job_id)
    if row is None:
        raise RequestError([Fault("id", f"no job `{job_id}`", "job_not_found")])
    return Job.from_row(row)


async def read_counts(store: JobStore, job: Job) -> Mapping[ResultGroup, WorkTotals]:
    """Return the sums of a job by model and result."""
    return {ResultGroup(*group): totals for group, totals in (await store.results.read_counts(job.number)).items()}


def wrong_state(sentence: str) -> RequestError:
    """Return the error for a job that is in the wrong state for what is to be done with it."""
    return RequestError([Fault("id", sentence, "wrong_state")])
