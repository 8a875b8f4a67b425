"""Delays that providers ask for before the next attempt: by header or in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fanout.providers.mapping.durations import parse_duration_s, parse_http_date, parse_number, read_server_time
from fanout.providers.mapping.json_fields import as_objects

MAX_DELAY_S = 31 * 86400.0
"""Longest plausible delay: monthly quotas; longer values are ignored."""

AGAIN = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+((?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)[a-z]*[\s,]*)+)", re.IGNORECASE)


def find_retry_after_s(headers: Mapping[str, str], error: Mapping[str, Any], message: str) -> float | None:
    """Return the seconds to wait, from the first that names some: `retry-after-ms`, `Retry-After`, the body; else its 0.

    Azure sends 0 milliseconds beside a whole second, and a 0 alone invites back at once.

    Source: RFC 9110 §10.2.3; `retry-after-ms`: openai-python and Azure; the body: Groq, OpenAI, google.rpc.RetryInfo.
    """
    shortest_s = None
    for delay_s in _read_delays(headers, error, message):
        if delay_s:
            return delay_s
        shortest_s = shortest_s if delay_s is None else delay_s
    return shortest_s


def _read_delays(headers: Mapping[str, str], error: Mapping[str, Any], message: str) -> Iterator[float | None]:
    in_ms = parse_number(headers.get("retry-after-ms"))
    yield None if in_ms is None else _keep_plausible(in_ms / 1000)
    yield _read_header(headers)
    # Headers are exact; a sentence may be about something else.
    yield _read_retry_info(error)
    yield _read_sentence(message)


def _read_header(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    if (number := parse_number(text)) is not None:
        return _keep_plausible(number)
    # By the server's own clock: ours may be minutes off.
    moment = parse_http_date(text)
    return None if moment is None else _keep_plausible(moment - read_server_time(headers))


def _read_retry_info(error: Mapping[str, Any]) -> float | None:
    for detail in as_objects(error.get("details")):
        if isinstance(delay := detail.get("retryDelay"), str):
            return _keep_plausible(parse_duration_s(delay))
    return None


def _read_sentence(message: str) -> float | None:
    match = AGAIN.search(message[:2000])
    return _keep_plausible(parse_duration_s(match[1])) if match else None


def _keep_plausible(delay_s: float | None) -> float | None:
    return delay_s if delay_s is not None and 0 <= delay_s <= MAX_DELAY_S else None
