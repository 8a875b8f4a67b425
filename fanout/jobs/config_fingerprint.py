"""What the models of a job stand for: written down when it is made, held against the configuration when it goes on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fanout.config.settings import ProviderSettings
from fanout.core.faults import Fault
from fanout.core.schema import Call
from fanout.jobs.job import FINGERPRINT_JSON, Fingerprint


def describe_call(call: Call, providers: Mapping[str, ProviderSettings], *, parameters: bool) -> dict[str, Any]:
    """What is really asked when this call is made. No secret is in it.

    Args:
        parameters: with what is sent beside the prompt, as long as that is the same for every call of the entry.
    """
    target = call.target
    row = providers.get(target.provider or "")
    found: dict[str, Any] = {
        "model": target.name,
        "provider": target.provider,
        "adapter": row.adapter if row else None,
        "base_url": row.base_url if row else None,
        "upstream_model": target.model,
        "kind": target.kind,
        "limit_group": target.limit_group,
    }
    if parameters:
        found |= {"sent": dict(call.fitted.sent), "ignored": list(call.fitted.ignored)}
    return found


def fingerprint_entries(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Fingerprint:
    """Of a job whose models are the same for every row: by entry."""
    return {f"{call.entry}: {call.target.label}": describe_call(call, providers, parameters=True) for call in calls}


def fingerprint_names(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Fingerprint:
    """Of requests that name their own models: by name."""
    return {call.target.name: describe_call(call, providers, parameters=False) for call in calls}


def find_differences(was: Fingerprint, is_now: Fingerprint) -> list[Fault]:
    """What has changed, one by one."""
    faults = []
    is_now = FINGERPRINT_JSON.validate_json(
        FINGERPRINT_JSON.dump_json(is_now)
    )  # as the other one was: tuples are lists there, keys text
    for name in {**was, **is_now}:
        before, after = was.get(name), is_now.get(name)
        if before is None or after is None:
            faults.append(Fault(name, "is new" if before is None else "is gone", "changed"))
            continue
        faults += [
            Fault(f"{name}.{key}", f"was `{before.get(key)}`, is `{after.get(key)}`", "changed")
            for key in {**before, **after}
            if key != "limit_group" and before.get(key) != after.get(key)
        ]
    return faults
