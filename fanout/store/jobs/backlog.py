"""The units that a database's open jobs have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, cast, func, select

from fanout.store.engine.database import Database
from fanout.store.jobs.records import OPEN_STATES
from fanout.store.jobs.results import JOBS_AT_ONCE
from fanout.store.tables import job_counts, jobs

MAX_OPEN_JOBS = 1_000


class OpenJob(NamedTuple):
    """A job that has not ended."""

    number: int
    id: str
    units: int


async def list_open_jobs(database: Database) -> Sequence[OpenJob]:
    """Return the oldest jobs that have not ended; raise `StoreError` if the database cannot be read."""
    query = select(jobs.c.number, jobs.c.id, jobs.c.units).where(jobs.c.state.in_(OPEN_STATES))
    return await database.fetch_as(OpenJob, query.order_by(jobs.c.created, jobs.c.number).limit(MAX_OPEN_JOBS))


async def count_ended(database: Database, numbers: Sequence[int]) -> Mapping[int, Mapping[str, int]]:
    """Return the units of jobs that have ended, by label; raise `StoreError` if the database cannot be read."""
    found: dict[int, dict[str, int]] = {number: {} for number in numbers}
    counts = job_counts.c
    query = select(counts.job, counts.model, cast(func.sum(counts.calls), BigInteger)).group_by(counts.job, counts.model)
    for first in range(0, len(numbers), JOBS_AT_ONCE):
        rows = await database.fetch_all(query.where(counts.job.in_(numbers[first : first + JOBS_AT_ONCE])))
        for number, label, ended in rows:
            found[number][label] = ended
    return found
