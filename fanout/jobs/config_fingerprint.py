"""Fingerprints of jobs: what their models stood for when a job was made, compared with the configuration of now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fanout.config.settings import ProviderSettings
from fanout.core.errors import Fault
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call
from fanout.jobs.job import FINGERPRINT_JSON, Fingerprint


def fingerprint_entries(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Fingerprint:
    """Return the fingerprint of a job whose models are the same for every row, by entry."""
    return {f"{call.entry}: {call.target.label}": _describe_call(call, providers, parameters=True) for call in calls}


def fingerprint_names(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Fingerprint:
    """Return the fingerprint of requests that name their own models, by name."""
    return {call.target.name: _describe_call(call, providers, parameters=False) for call in calls}


def find_differences(before: Fingerprint, now: Fingerprint) -> list[Fault]:
    """Return every difference between two fingerprints.

    The limit group is none: it decides when a call is sent, not what is sent.
    """
    faults = []
    now = FINGERPRINT_JSON.validate_json(FINGERPRINT_JSON.dump_json(now))  # tuples as lists, as in the stored one
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            faults.append(Fault(name, "is new" if old is None else "is gone", "changed"))
            continue
        faults += [
            Fault(f"{name}.{key}", f"was `{old.get(key)}`, is `{new.get(key)}`", "changed")
            for key in {**old, **new}
            if key != "limit_group" and old.get(key) != new.get(key)
        ]
    return faults


def _describe_call(call: Call, providers: Mapping[str, ProviderSettings], *, parameters: bool) -> JsonObject:
    """Return where a call goes; with `parameters` also what is sent beside the prompt. No secret is in it."""
    target = call.target
    row = providers.get(target.provider or "")
    described: JsonObject = {
        "model": target.name,
        "provider": target.provider,
        "adapter": row.adapter if row else None,
        "base_url": row.base_url if row else None,
        "upstream_model": target.model,
        "kind": target.kind,
        "limit_group": target.limit_group,
    }
    if parameters:
        described |= {"sent": dict(call.fitted.sent), "ignored": list(call.fitted.ignored)}
    return described
