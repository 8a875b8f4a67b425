"""Times in queries: dates and RFC 3339 times."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import WithJsonSchema

DAY_S = 86_400
TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?")
"""Source: RFC 3339 §5.6, `full-date` or `date-time`."""


def parse_time(text: str) -> tuple[float, bool]:
    """Return Unix seconds, and whether only a date was given.

    Raises:
        ValueError: it is neither a date nor a time with its zone.
    """
    # `+` in a query means a space: a caller who forgot to write %2B meant the sign of the zone.
    given = re.sub(r" (\d\d:\d\d)$", r"+\1", text).upper()
    try:
        moment = datetime.fromisoformat(given if TIME_PATTERN.fullmatch(given) else "")
    except ValueError:
        allowed = "a date, `2026-11-20`, or a time with its zone, `2026-11-20T09:30:00Z`"
        raise ValueError(f"`{text[:80]}` is not allowed: {allowed}") from None
    zoned = moment.replace(tzinfo=moment.tzinfo or UTC)
    return (zoned - datetime.fromtimestamp(0, UTC)).total_seconds(), len(given) == len("2026-11-20")


def time_schema(example: str) -> WithJsonSchema:
    """Return the JSON schema of a date or time."""
    return WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}], "examples": [example]})
