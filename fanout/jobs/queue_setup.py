"""The model queues of a job, by what its fingerprint says of its entries."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.config.settings import Settings
from fanout.jobs.fusion_gate import FusionGate
from fanout.jobs.job import Job, parse_entry_number
from fanout.jobs.model_queues import AccountSlots, ModelQueue, QueueKey

DEFAULT_ACCOUNT_CONCURRENCY = 256
"""Concurrent calls of one account if neither the account nor the job sets a limit."""


def make_queues(job: Job, settings: Settings, gate: FusionGate) -> dict[QueueKey, ModelQueue]:
    """Return a queue for each model of each account; the job's fusions are entered at the gate."""
    entries: dict[QueueKey, list[int]] = {}
    for name, model in job.fingerprint.items():
        of_model = entries.setdefault(_get_key(model), [])
        if job.spec.kind == "rows":
            of_model.append(parse_entry_number(name))
            if fusion := model.get("fusion"):
                gate.fusions[of_model[-1]] = fusion["of"]
    accounts: dict[tuple[str | None, str | None], AccountSlots] = {}
    queues = {}
    for key in sorted(entries, key=str):
        account = accounts.setdefault(key[:2], AccountSlots(_find_max_concurrency(job, settings, key[0])))
        row = settings.providers.get(key[0] or "")
        in_batches = job.spec.via == "batch" and row is not None and row.row.economy is not None
        queues[key] = ModelQueue(account, key, entries[key] or None, goes_in_batches=in_batches)
    return queues


def _find_max_concurrency(job: Job, settings: Settings, provider: str | None) -> int:
    row = settings.providers.get(provider or "")
    own = row.row.limits.concurrency if row else None
    return min(filter(None, (own, job.spec.concurrency)), default=DEFAULT_ACCOUNT_CONCURRENCY)


def _get_key(model: Mapping[str, str | None]) -> QueueKey:
    return model["provider"], model["limit_group"], model["upstream_model"]
