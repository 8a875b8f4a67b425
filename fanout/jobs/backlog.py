"""The backlog of each account, read from a store that several processes share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from fanout.config.settings import Settings
from fanout.core.threads import run_in_thread
from fanout.jobs.accounts import count_entries, list_accounts
from fanout.jobs.job import Job
from fanout.jobs.presence import is_lost
from fanout.observability.backlog import AccountBacklog
from fanout.store.jobs.backlog import OpenJob, count_ended, list_open_jobs
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import JobRow
from fanout.store.opening import Store
from fanout.store.processes import ProcessRow

MAX_AGE_S = 30.0
"""Age at which figures are no longer shown: the database is away, and what is unknown is absent."""
JOBS_AT_ONCE = 100
SEVERAL = ""
"""Account of the units of jobs whose lines name models of several: which of them is left is not known."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Properties of a job that never change."""

    is_unattended: bool
    accounts: Sequence[str]
    entries: Mapping[tuple[str, str], int]
    """Number by account and label; none: its lines name their own models."""


class BacklogReader:
    """The backlog as it was last read."""

    def __init__(self, jobs: JobStore, store: Store, get_settings: Callable[[], Settings]) -> None:
        self._jobs, self._store, self._get_settings = jobs, store, get_settings
        self._shapes: dict[int, _Shape] = {}
        self._found: Mapping[str, AccountBacklog] = {}
        self._read_at = -float("inf")

    @property
    def by_account(self) -> Mapping[str, AccountBacklog]:
        """The backlog of each account; empty where it was not read lately."""
        return self._found if time.monotonic() - self._read_at < MAX_AGE_S else {}

    async def refresh(self) -> None:
        """Read it anew; raise `StoreError` if the database cannot be read."""
        # Sums of the jobs that are open, never their units: a job of a million costs no more than one of ten.
        jobs = await list_open_jobs(self._store.database)
        await self._learn_shapes(jobs)
        counted = [job for job in jobs if (shape := self._shapes.get(job.number)) and shape.is_unattended]
        ended = await count_ended(self._store.database, [job.number for job in counted])
        left = count_left(counted, ended, self._shapes)
        processes = [row for row in await self._store.processes.list_processes() if row.kind != "batch" and not is_lost(row)]
        self._found = {
            name: self._summarize(name, left[name], processes) for name in sorted({*left, *self._list_ready()} - {SEVERAL})
        }
        if left[SEVERAL]:
            self._found = {**self._found, SEVERAL: AccountBacklog(left[SEVERAL], None, None, count_workers(processes, None))}
        self._read_at = time.monotonic()

    def _list_ready(self) -> Collection[str]:
        return [name for name, provider in self._get_settings().providers.items() if not provider.lacks()]

    async def _learn_shapes(self, jobs: Sequence[OpenJob]) -> None:
        ids = {job.number: job.id for job in jobs}
        # What has ended is forgotten, so that what is kept is bounded by the jobs that are open.
        self._shapes = {number: shape for number, shape in self._shapes.items() if number in ids}
        unknown = [job_id for number, job_id in ids.items() if number not in self._shapes]
        for first in range(0, len(unknown), JOBS_AT_ONCE):
            found = await self._jobs.find_all(unknown[first : first + JOBS_AT_ONCE])
            # In a thread: specifications and fingerprints take a while to parse.
            self._shapes |= await run_in_thread("figures", _read_shapes, found)

    def _summarize(self, name: str, units: int, processes: Sequence[ProcessRow]) -> AccountBacklog:
        per_minute = self._find_requests_per_minute(name)
        rate = sum(from_json(row.activity)["calls_per_second"].get(name, 0.0) for row in processes)
        least_s = units / per_minute * 60 if per_minute else None
        seconds = 0.0 if not units else units / rate if rate else least_s
        return AccountBacklog(units, seconds, least_s, count_workers(processes, name))

    def _find_requests_per_minute(self, name: str) -> int | None:
        settings = self._get_settings()
        # With limit groups it is the limit of each of them, and how many have units left is not known.
        has_groups = any(model.provider == name and model.limit_group for model in settings.models.values())
        provider = settings.providers.get(name)
        return provider.row.limits.requests_per_minute if provider and not has_groups else None


def _read_shapes(rows: Sequence[JobRow]) -> Mapping[int, _Shape]:
    jobs = map(Job.from_row, rows)
    return {job.number: _Shape(job.spec.unattended, sorted(list_accounts(job)), count_entries(job)) for job in jobs}


def count_left(jobs: Sequence[OpenJob], ended: Mapping[int, Mapping[str, int]], shapes: Mapping[int, _Shape]) -> Counter[str]:
    """Return the units that jobs have left, by account."""
    left: Counter[str] = Counter()
    for job in jobs:
        shape, of_job = shapes[job.number], ended[job.number]
        if not shape.entries:
            account = shape.accounts[0] if len(shape.accounts) == 1 else SEVERAL
            left[account] += max(job.units - sum(of_job.values()), 0)
            continue
        # Every entry has the same number of units: its items times the repeats.
        per_entry = job.units // sum(shape.entries.values())
        for (account, label), entries in shape.entries.items():
            left[account] += max(per_entry * entries - of_job.get(label, 0), 0)
    return left


def count_workers(processes: Sequence[ProcessRow], account: str | None) -> int:
    """Return the number of processes that take jobs of an account; `None`: of all."""
    taken = [from_json(row.accounts) if row.accounts is not None else None for row in processes if row.state == "working"]
    return sum(accounts is None or account in accounts for accounts in taken)
