"""Lenient reads of foreign JSON: a value of another type than its format promises counts as absent."""

from __future__ import annotations

import math

from fanout.core.json_text import JsonObject


def as_object(value: object) -> JsonObject:
    """Return `value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[JsonObject]:
    """Return the objects of a list; none where `value` is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_text(value: object) -> str:
    """Return `value` where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_name(value: object) -> str | None:
    """Return an id or a name, cut to what is worth keeping; `None` where there is none."""
    return value[:200] if isinstance(value, str) and value else None


def as_number(value: object) -> float | None:
    """Return `value` where it is a finite number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def as_count(value: object) -> int | None:
    """Return `value` where it is a number of tokens."""
    if type(value) is int:  # nearly always, and a dozen times an answer; a bool is none
        return value if value >= 0 else None
    return int(value) if isinstance(value, float) and value.is_integer() and value >= 0 else None
