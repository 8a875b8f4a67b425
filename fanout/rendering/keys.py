"""Callers' keys, and the record of changes, as answers show them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.units import to_rfc3339
from fanout.rendering.shared import PageJson
from fanout.requests.keys import LIMIT_NAMES, load_limits
from fanout.store.keys.audit import AuditRow
from fanout.store.keys.key_store import KeyRow, Role
from fanout.store.keys.secrets import MARK, SecretRow

KeyState = Literal["active", "expired", "revoked"]


class KeyLimitsJson(TypedDict):
    """Limits of a key; null: none."""

    models: Annotated[Sequence[str] | None, Doc("Names, aliases, sets and patterns of the models that it may call.")]
    requests_per_minute: Annotated[int | None, Doc("Requests that call models, and calls of jobs, in a minute.")]
    tokens_per_minute: Annotated[int | None, Doc("Tokens of prompts and answers in a minute.")]
    in_flight: Annotated[int | None, Doc("Requests that call models, and calls of jobs, at once.")]
    queue_share: Annotated[float | None, Doc("Part of the places in each queue that its calls may take.")]
    budget_day_usd: Annotated[float | None, Doc("US dollars on a day, in UTC.")]
    budget_month_usd: Annotated[float | None, Doc("US dollars in a month, in UTC.")]
    budget_total_usd: Annotated[float | None, Doc("US dollars ever.")]
    max_files: Annotated[int | None, Doc("Uploaded files of its account.")]
    max_stored_bytes: Annotated[int | None, Doc("Bytes of the uploaded files of its account.")]
    max_rows: Annotated[int | None, Doc("Rows of all jobs of its account.")]
    max_running_jobs: Annotated[int | None, Doc("Jobs of its account that have not ended.")]


class KeyJson(TypedDict):
    """A key, without what opens anything."""

    id: str
    object: Literal["key"]
    name: Annotated[str, Doc("What it is for.")]
    account_id: Annotated[str, Doc("Account whose data it opens.")]
    role: Role
    state: Annotated[KeyState, Doc("Whether it opens anything.")]
    prefixes: Annotated[Sequence[str], Doc("Beginnings of the keys that are good, the newest first.")]
    created: Annotated[str, Doc("RFC 3339, UTC.")]
    created_by: Annotated[str, Doc("Id of a key, `environment:<account>`, `local` or `command line`.")]
    expires: Annotated[str | None, Doc("RFC 3339, UTC; null: never.")]
    revoked: Annotated[str | None, Doc("RFC 3339, UTC; null: it was not.")]
    limits: KeyLimitsJson


class KeyAmountsJson(TypedDict):
    """Amounts, by the limit that they belong to."""

    requests_per_minute: Annotated[int | None, Doc("Requests, and calls of jobs, of the last minute.")]
    tokens_per_minute: Annotated[int | None, Doc("Tokens of the last minute; calls in flight by estimate.")]
    in_flight: Annotated[int | None, Doc("Requests, and calls of jobs, of this server.")]
    budget_day_usd: Annotated[float | None, Doc("US dollars of this day, in UTC.")]
    budget_month_usd: Annotated[float | None, Doc("US dollars of this month, in UTC.")]
    budget_total_usd: Annotated[float | None, Doc("US dollars ever.")]


class KeyRenewalsJson(TypedDict):
    """When budgets begin anew."""

    budget_day_usd: Annotated[str, Doc("RFC 3339, UTC.")]
    budget_month_usd: Annotated[str, Doc("RFC 3339, UTC.")]


class KeyUseJson(KeyJson):
    """A key, and what it has used."""

    used: Annotated[KeyAmountsJson, Doc("What it has used; costs that are not known are missing.")]
    reserved_usd: Annotated[float, Doc("US dollars set aside for calls in flight at this server.")]
    left: Annotated[KeyAmountsJson, Doc("What is left of its limits; null: there is no limit.")]
    renews: Annotated[KeyRenewalsJson, Doc("When its budgets of a day and a month begin anew.")]


class OwnKeyJson(TypedDict):
    """The key of whoever asks, of FANOUT_API_KEYS, or none."""

    object: Literal["key"]
    actor: Annotated[str, Doc("`environment:<account>`, or `local` on a server without keys.")]
    account_id: Annotated[str | None, Doc("Account whose data it opens; null: all.")]
    role: Role


class NewKeyJson(KeyJson):
    """A key with its secret, which is shown here and nowhere else."""

    key: Annotated[str, Doc("To be sent as `Authorization: Bearer <key>`. It cannot be shown again.")]


class KeyListJson(PageJson):
    data: Sequence[KeyJson]


class ChangeJson(TypedDict):
    """A change, as it was recorded."""

    id: Annotated[str, Doc("Its number.")]
    object: Literal["audit_record"]
    time: Annotated[str, Doc("RFC 3339, UTC.")]
    event: Annotated[str, Doc("`key.created`, `key.changed`, `key.rotated`, `key.revoked`, …")]
    actor: Annotated[str, Doc("Id of a key, `environment:<account>`, `local`, `command line` or `signal`.")]
    subject: Annotated[str, Doc("Id or name of what was changed.")]
    details: Annotated[Mapping[str, Any], Doc("The new values.")]


class ChangeListJson(PageJson):
    data: Sequence[ChangeJson]


def render_limits(stored: str) -> KeyLimitsJson:
    """Return the limits of a key."""
    limits = load_limits(stored)
    return {name: getattr(limits, name) for name in LIMIT_NAMES}  # type: ignore[return-value]  # the same names


def render_key(key: KeyRow, secrets: Sequence[SecretRow]) -> KeyJson:
    """Return a key."""
    now = time.time()
    expired: KeyState = "active" if key.is_good(now) else "expired"
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "account_id": key.account_id,
        "role": key.role,
        "state": "revoked" if key.revoked is not None else expired,
        "prefixes": [f"{MARK}-{secret.prefix}" for secret in secrets if key.is_good(now) and secret.is_good(now)],
        "created": to_rfc3339(key.created),
        "created_by": key.created_by,
        "expires": to_rfc3339(key.expires, "auto"),
        "revoked": to_rfc3339(key.revoked),
        "limits": render_limits(key.limits),
    }


def render_change(row: AuditRow) -> ChangeJson:
    """Return a change."""
    details: JsonObject = from_json(row.details)
    return {
        "id": str(row.number),
        "object": "audit_record",
        "time": to_rfc3339(row.time),
        "event": row.event,
        "actor": row.actor,
        "subject": row.subject,
        "details": details,
    }
