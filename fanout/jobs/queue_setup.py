"""The model queues of a job, by what its fingerprint says of its entries."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.config.settings import Settings
from fanout.jobs.account_slots import AccountSlots
from fanout.jobs.fusion_gate import FusionGate
from fanout.jobs.job import Job, parse_entry_number
from fanout.jobs.model_queues import ModelQueue, QueueKey
from fanout.limits.limiter import MINUTE_S
from fanout.limits.registry import Sharing
from fanout.limits.shared.rules import SharedRules
from fanout.limits.shared.share import ProcessShare

DEFAULT_ACCOUNT_CONCURRENCY = 256
"""Concurrent calls of one account if neither the account nor the job sets a limit."""


def make_queues(job: Job, settings: Settings, gate: FusionGate, sharing: Sharing | None) -> dict[QueueKey, ModelQueue]:
    """Return a queue for each model of each account; the job's fusions are entered at the gate.

    `sharing` keeps the job's own bound on its calls together with other processes that run it, if there may be any.
    """
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
        if (account := accounts.get(key[:2])) is None:
            most = _find_max_concurrency(job, settings, key[0])
            share = _join_account(job, key, most, sharing) if sharing and job.spec.concurrency else None
            account = accounts[key[:2]] = AccountSlots(most, share)
        row = settings.providers.get(key[0] or "")
        in_batches = job.spec.via == "batch" and row is not None and row.row.economy is not None
        queues[key] = ModelQueue(account, key, entries[key] or None, goes_in_batches=in_batches)
    return queues


def _find_max_concurrency(job: Job, settings: Settings, provider: str | None) -> int:
    row = settings.providers.get(provider or "")
    own = row.row.limits.concurrency if row else None
    return min(filter(None, (own, job.spec.concurrency)), default=DEFAULT_ACCOUNT_CONCURRENCY)


def _join_account(job: Job, key: QueueKey, most: int, sharing: Sharing) -> ProcessShare:
    """Return this process's part of the job's places at an account, by a key that no account has."""
    provider, group, _ = key
    name = f"{provider}/{group}" if group else provider
    return sharing.join(f"job {job.id}", name, None, SharedRules(MINUTE_S, concurrency=most))


def _get_key(model: Mapping[str, str | None]) -> QueueKey:
    return model["provider"], model["limit_group"], model["upstream_model"]
