"""Numbers, durations and times as providers write them in headers and sentences."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_number(text: str | None) -> float | None:
    """Return a finite number; `None` where there is none."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def parse_duration_s(text: str) -> float | None:
    """Return the seconds in `5.289s`, `6m0s`, `20ms` or `46 seconds`."""
    pieces = PIECE.findall(text[:100])
    return sum(float(number) * UNITS_S[unit.lower()] for number, unit in pieces) if pieces else None


def parse_http_date(text: str) -> float | None:
    """Return the Unix seconds of a time as `Fri, 20 Nov 2026 10:00:30 GMT`."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def parse_rfc3339(text: str) -> float | None:
    """Return the Unix seconds of a time as `2026-11-20T10:00:30Z`; one without a zone is UTC's."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.timestamp() if moment.tzinfo else moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def read_server_time(headers: Mapping[str, str]) -> float:
    """Return the Unix seconds of the server's clock where its answer has them: ours may differ."""
    moment = parse_http_date(headers.get("date", ""))
    return time.time() if moment is None else moment
