"""Activity of a process for its store, at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

from typing_extensions import Doc, TypedDict

from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.accounts import map_labels
from fanout.jobs.chunk_claims import count_chunks
from fanout.jobs.manager import JobManager

MAX_SHOWN_JOBS = 16


class JobActivityJson(TypedDict):
    """A job that a process works on."""

    id: str
    chunks: Annotated[int | None, Doc("Chunks of it that the process has now; null: it runs the whole job.")]
    calls_in_flight: Annotated[int, Doc("Its calls in flight here.")]
    waiting: Annotated[int, Doc("Its units that wait here for another attempt.")]
    calls_per_second: Annotated[float | None, Doc("Its units that end here in a second, recently.")]


class ActivityJson(TypedDict):
    """Work of a process at one moment."""

    jobs: Annotated[Sequence[JobActivityJson], Doc("Jobs that it works on, at most 16.")]
    calls_in_flight: Annotated[int, Doc("Calls upstream, those of requests included.")]
    calls_waiting: Annotated[int, Doc("Calls that wait for limits.")]
    calls_per_second: Annotated[Mapping[str, float], Doc("Units of jobs that end here in a second, recently, by account.")]


def describe_activity(manager: JobManager, dispatcher: Dispatcher) -> ActivityJson:
    """Return what this process does."""
    jobs: list[JobActivityJson] = []
    rates: Counter[str] = Counter()
    for worker in manager.executor.workers.values():
        progress = worker.progress
        # Of this process alone: the job's own rate is that of all processes that share it.
        accounts = map_labels(worker.job)
        for label, rate in progress.rates.items():
            rates[accounts.get(label, "")] += rate  # type: ignore[assignment]  # a Counter of whatever can be added
        jobs.append(
            {
                "id": worker.job.id,
                "chunks": count_chunks(worker.claim),
                "calls_in_flight": progress.running,
                "waiting": progress.waiting,
                "calls_per_second": round(sum(progress.rates.values()), 3) if progress.rates else None,
            }
        )
    states = [limiter.snapshot() for limiter in dispatcher.limiters]
    return {
        "jobs": jobs[:MAX_SHOWN_JOBS],
        "calls_in_flight": dispatcher.cap.used,
        "calls_waiting": sum(state.waiting for state in states),
        "calls_per_second": {account: round(rate, 3) for account, rate in rates.items() if account and rate >= 0.001},
    }
