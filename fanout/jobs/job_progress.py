"""Progress of jobs, whichever processes run them: from the store, and of those that run here alone from their workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fanout.core.usage import sum_known
from fanout.jobs.claims import is_shared
from fanout.jobs.job import Job, Progress, read_counts
from fanout.jobs.worker import JobWorker
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import WorkerLoad


async def read_progress_of(store: JobStore, running: Mapping[int, JobWorker], jobs: Sequence[Job]) -> list[Progress]:
    """Return the progress of each job, all with one query; of those that several processes share, with another one."""
    # A worker counts units that the journal has not written yet; but of a shared job only its own.
    workers = {
        job.number: running[job.number] for job in jobs if job.number in running and not running[job.number].claim.is_shared
    }
    others = [job for job in jobs if job.number not in workers]
    counts = iter(await read_counts(store, others) if others else ())
    shared = [job.number for job in others if job.owners and is_shared(store, job)]
    loads = await store.chunks.read_loads(shared) if shared else {}
    return [
        replace(workers[job.number].progress, job=job)
        if job.number in workers
        else _sum_loads(Progress(job.as_left, next(counts)), loads.get(job.number, ()))
        for job in jobs
    ]


def _sum_loads(progress: Progress, loads: Sequence[WorkerLoad]) -> Progress:
    """Return the progress of a job with what each process does for it, and the sums of that."""
    if not loads:
        return progress
    rate = sum_known(load.rate for load in loads)
    running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
    return replace(progress, job=replace(progress.job, rate=rate), running=running, waiting=waiting, workers=loads)
