"""The providers' accounts that a job calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from fanout.jobs.job import Job


def list_accounts(job: Job) -> frozenset[str]:
    """Return the accounts that a job calls."""
    return frozenset(str(model["provider"]) for model in job.fingerprint.values() if model["provider"])


def is_within(job: Job, accounts: Collection[str] | None) -> bool:
    """Return whether a job calls none but some accounts; `None`: all."""
    return accounts is None or list_accounts(job) <= set(accounts)


def map_labels(job: Job) -> Mapping[str, str]:
    """Return the account of each label that a job's results have."""
    return {_get_label(job, name): str(model["provider"]) for name, model in job.fingerprint.items() if model["provider"]}


def count_entries(job: Job) -> Mapping[tuple[str, str], int]:
    """Return the number of a job's entries by account and label; of requests, which name their own models, there are none."""
    if job.spec.kind != "rows":
        return {}
    return Counter((str(model["provider"]), _get_label(job, name)) for name, model in job.fingerprint.items())


def _get_label(job: Job, name: str) -> str:
    return name.partition(": ")[2] if job.spec.kind == "rows" else name
