"""What an answer's headers say is left of the account's limits, in any provider's spelling. Pure, but for the clock.

| who | names | the reset is |
|---|---|---|
| OpenAI, Groq, Azure | `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` | `12ms`, `6m0s`; Azure: seconds |
| Anthropic | `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}` | a time, RFC 3339 |
| Cerebras, Mistral | as OpenAI's, with `-minute` or `-day` behind; Mistral: `req` | seconds; Mistral names none |
| Together, OpenRouter | `x-ratelimit-{limit,remaining,reset}`, `x-tokenlimit-…` | seconds, or Unix seconds or milliseconds |

Source: https://platform.openai.com/docs/guides/rate-limits, https://platform.claude.com/docs/en/api/rate-limits,
https://console.groq.com/docs/rate-limits, https://inference-docs.cerebras.ai/support/rate-limits (2026-11).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from multidict import istr

from fanout.core.schema import RateLimitStatus, Remaining
from fanout.providers.mapping.retry_after import parse_duration_s

HIGHEST = 10**15
"""No limit is higher: what is, is garbled."""
MAX_RESET_S = 32 * 86400.0
"""A month's limit comes back within."""
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
EPOCH_S, EPOCH_MS = 1e9, 1e12
"""A reset above is no delay but a moment: Unix seconds, or milliseconds."""

Names = tuple[istr, istr, istr]
"""Of the limit, of what remains, and of the reset."""


def _spelling(names: str) -> Names:
    return istr(names.format("limit")), istr(names.format("remaining")), istr(names.format("reset"))


REQUESTS = tuple(
    _spelling(names)
    for names in (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-requests-minute",
        "x-ratelimit-{}-requests-day",
        "x-ratelimit-{}-req-minute",
        "x-ratelimit-{}",
    )
)
TOKENS = tuple(
    _spelling(names)
    for names in (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens-minute",
        "x-tokenlimit-{}",
    )
)


def parse_rate_headers(headers: Mapping[str, str]) -> RateLimitStatus | None:
    """What is left; `None` where nothing is said that makes sense."""
    requests, tokens = _left(headers, REQUESTS), _left(headers, TOKENS)
    return None if requests is None and tokens is None else RateLimitStatus(requests or Remaining(), tokens or Remaining())


def _left(headers: Mapping[str, str], spellings: tuple[Names, ...]) -> Remaining | None:
    """By the spelling of which the least remains: a day's limit may be nearer than a minute's."""
    said = list(_said(headers, spellings))
    return min(said, key=lambda left: HIGHEST if left.remaining is None else left.remaining) if said else None


def _said(headers: Mapping[str, str], spellings: tuple[Names, ...]) -> Iterator[Remaining]:
    for limit, remaining, reset in spellings:
        if remaining in headers:
            # Azure: a limit of 0 and a rest of -1 mean that it does not know.
            left = Remaining(
                _count(headers.get(limit)) or None, _count(headers.get(remaining)), _reset_s(headers.get(reset), headers)
            )
            if left.limit is not None or left.remaining is not None:
                yield left


def _count(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and 0 <= number <= HIGHEST else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _reset_s(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds, however they are written."""
    if not text:
        return None
    number = _number(text)
    if number is None and DURATION.fullmatch(text):
        return parse_duration_s(text)
    moment = _moment(text) if number is None else number / 1000 if number >= EPOCH_MS else number
    if moment is None or moment < 0:
        return None
    delay_s = max(moment - _now(headers), 0.0) if moment >= EPOCH_S else moment  # it may just have passed
    return delay_s if delay_s <= MAX_RESET_S else None


def _moment(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; one without a zone is UTC's."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.timestamp() if moment.tzinfo else moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _now(headers: Mapping[str, str]) -> float:
    """The server's clock, where it tells it: ours may differ."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return time.time()
