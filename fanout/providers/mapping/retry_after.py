"""How long a provider asks to be left alone: by header or in words."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

MAX_DELAY_S = 31 * 86400.0
"""A quota comes back next month; what is named beyond that is no delay."""

AGAIN = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+((?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)[a-z]*[\s,]*)+)", re.IGNORECASE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def find_retry_after_s(headers: Mapping[str, str], error: Mapping[str, Any], message: str) -> float | None:
    """Seconds to wait, by the first that says so: `retry-after-ms`, `Retry-After`, the body.

    Source: RFC 9110 §10.2.3; `retry-after-ms`: openai-python and Azure; the body: Groq, OpenAI, google.rpc.RetryInfo.
    """
    in_ms = _number(headers.get("retry-after-ms"))
    if in_ms is not None and (delay_s := _sensible(in_ms / 1000)) is not None:
        return delay_s
    after = headers.get("retry-after")
    if after is not None and (delay_s := _seconds(after, headers.get("date"))) is not None:
        return delay_s
    return _retry_info(error) or _spoken(message)


def _seconds(after: str, server_time: str | None) -> float | None:
    number = _number(after)
    if number is not None:
        return _sensible(number)
    try:
        then = parsedate_to_datetime(after).timestamp()
        now = parsedate_to_datetime(server_time).timestamp() if server_time else time.time()
    except (ValueError, OverflowError):
        return None
    return _sensible(then - now)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _sensible(delay_s: float) -> float | None:
    return delay_s if math.isfinite(delay_s) and 0 <= delay_s <= MAX_DELAY_S else None


def _retry_info(error: Mapping[str, Any]) -> float | None:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(delay := detail.get("retryDelay"), str):
            return parse_duration_s(delay)
    return None


def _spoken(message: str) -> float | None:
    found = AGAIN.search(message[:2000])
    return parse_duration_s(found[1]) if found else None


def parse_duration_s(text: str) -> float | None:
    """`5.289s`, `6m0s`, `20ms`, `46 seconds` → seconds."""
    parts = DURATION.findall(text[:100])
    return _sensible(sum(float(number) * UNIT_S[unit.lower()] for number, unit in parts)) if parts else None
