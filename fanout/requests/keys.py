"""Bodies of the requests about callers' keys, and the limits that are stored of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema

from fanout.config.api_keys import ACCOUNT_NAME
from fanout.core.units import LAST_MINUTE, TIME_PATTERN, parse_time
from fanout.requests.bodies import ObjectBody

MAX_PATTERNS = 256
MAX_GRACE_S = 30 * 86_400
DAY_S = 86_400
KeyRole = Literal["admin", "user", "viewer", "metrics"]
Count = Annotated[int | None, Field(ge=1, le=10**12)]
Quota = Annotated[int | None, Field(ge=0, le=10**15)]
Usd = Annotated[float | None, Field(ge=0, le=1e9)]


def _parse_expiry(value: object) -> object:
    """Turn a date, whose whole day is included, or a time into Unix seconds; leave everything else to be refused."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be a date, `2026-11-20`, or a time with its zone, `2026-11-20T09:30:00Z`")  # noqa: TRY004
    moment, is_date = parse_time(value)
    moment += DAY_S if is_date else 0
    if not time.time() < moment < LAST_MINUTE:
        raise ValueError(f"`{value}` is not allowed: a time to come")
    return moment


EXPIRY_SCHEMA = {"anyOf": [{"type": "string", "pattern": f"^{TIME_PATTERN.pattern}$"}, {"type": "null"}]}
Expiry = Annotated[float | None, BeforeValidator(_parse_expiry), WithJsonSchema(EXPIRY_SCHEMA)]


class KeyLimits(ObjectBody):
    """The limits of a key; what is absent or null has no limit."""

    models: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        None, min_length=1, max_length=MAX_PATTERNS
    )
    """Models that it may call: names, aliases, sets, or patterns such as `gpt-*`."""
    requests_per_minute: Count = None
    """Requests that call models, and calls of jobs, in a minute."""
    tokens_per_minute: Count = None
    """Tokens of prompts and answers in a minute; before an answer has come, an estimate counts."""
    in_flight: Count = None
    """Requests that call models, and calls of jobs, at once."""
    queue_share: Annotated[float | None, Field(gt=0, le=1)] = None
    """Part of the places in the queue of each provider account that its calls may take, 0 to 1."""
    budget_day_usd: Usd = None
    """US dollars that its calls may cost on a day, in UTC."""
    budget_month_usd: Usd = None
    """US dollars that its calls may cost in a month, in UTC."""
    budget_total_usd: Usd = None
    """US dollars that its calls may ever cost."""
    max_files: Quota = None
    """Uploaded files of its account."""
    max_stored_bytes: Quota = None
    """Bytes of the uploaded files of its account."""
    max_rows: Quota = None
    """Rows of all jobs of its account."""
    max_running_jobs: Quota = None
    """Jobs of its account that have not ended."""


LIMIT_NAMES = tuple(KeyLimits.model_fields)


class KeyBody(KeyLimits):
    """A key to create."""

    name: str = Field(min_length=1, max_length=128)
    """What it is for, for people."""
    account_id: str | None = Field(None, pattern=f"^{ACCOUNT_NAME.pattern}$")
    """Account whose data it opens; absent: an account of its own, named like its id."""
    role: KeyRole = "user"
    """`admin`: manages keys; `user`: calls models and changes the account's data; `viewer`: reads the account's data;
    `metrics`: reads `/metrics` alone."""
    expires: Expiry = None
    """When it ends: a date, whose whole day is included, or an RFC 3339 time; null: never."""


class KeyChangeBody(KeyLimits):
    """Changes of a key; what is absent stays, and null takes a limit away."""

    name: str | None = Field(None, min_length=1, max_length=128)
    """What it is for, for people; null: as it is."""
    role: KeyRole | None = None
    """Its role from now on; null: as it is."""
    expires: Expiry = None
    """When it ends: a date, whose whole day is included, or an RFC 3339 time; null: never."""


class KeyRotationBody(ObjectBody):
    """The rotation of a key."""

    grace_s: float = Field(0, ge=0, le=MAX_GRACE_S)
    """Seconds in which the old key is still good."""


LIMITS_JSON = TypeAdapter(dict[str, object])


def dump_limits(limits: Mapping[str, object]) -> str:
    """Return limits as they are stored: without those that are none."""
    return LIMITS_JSON.dump_json({name: limits[name] for name in LIMIT_NAMES if limits.get(name) is not None}).decode()


def load_limits(stored: str) -> KeyLimits:
    """Return limits as they are stored."""
    return KeyLimits.model_validate_json(stored)
