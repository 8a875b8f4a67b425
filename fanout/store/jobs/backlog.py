"""The units that a database's open jobs have left."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Select, cast, func, select

from fanout.store.engine.database import Database
from fanout.store.jobs.records import OPEN_STATES
from fanout.store.tables import job_counts, jobs

MAX_OPEN_JOBS = 1_000


class OpenUnits(NamedTuple):
    """A job that has not ended, and the units of one of its models that have."""

    number: int
    job_id: str
    units: int
    """Of the whole job."""
    label: str | None
    """`None`: no unit has ended."""
    ended: int | None


async def list_open_units(database: Database) -> list[OpenUnits]:
    """Return the ended units of the oldest open jobs, by model; raise `StoreError` if the database cannot be read."""
    open_jobs = select(jobs.c.number, jobs.c.id, jobs.c.units).where(jobs.c.state.in_(OPEN_STATES))
    oldest = open_jobs.order_by(jobs.c.number).limit(MAX_OPEN_JOBS).subquery()
    ended = cast(func.sum(job_counts.c.calls), BigInteger)
    query: Select[tuple[object, ...]] = (
        select(oldest.c.number, oldest.c.id, oldest.c.units, job_counts.c.model, ended)
        .select_from(oldest.outerjoin(job_counts, job_counts.c.job == oldest.c.number))
        .group_by(oldest.c.number, oldest.c.id, oldest.c.units, job_counts.c.model)
    )
    return await database.fetch_as(OpenUnits, query)
