"""Headers that report what is left of an account's limits, in any provider's spelling. Pure, but for the clock.

| provider | names | the reset is |
|---|---|---|
| OpenAI, Groq, Azure | `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` | `12ms`, `6m0s`; Azure: seconds |
| Anthropic | `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}` | a time, RFC 3339 |
| Cerebras, Mistral | as OpenAI's, with `-minute` or `-day` behind; Mistral: `req` | seconds; Mistral names none |
| Together, OpenRouter | `x-ratelimit-{limit,remaining,reset}`, `x-tokenlimit-…` | seconds, or Unix seconds or milliseconds |

Source: https://platform.openai.com/docs/guides/rate-limits, https://platform.claude.com/docs/en/api/rate-limits,
https://console.groq.com/docs/rate-limits, https://inference-docs.cerebras.ai/support/rate-limits (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from multidict import istr

from fanout.core.rate_limits import RateLimitStatus, Remaining
from fanout.providers.mapping.durations import parse_duration_s, parse_number, parse_rfc3339, read_server_time
from fanout.providers.mapping.json_fields import MAX_COUNT

MAX_RESET_S = 32 * 86400.0
"""A month's limit is restored within it."""
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
EPOCH_S, EPOCH_MS = 1e9, 1e12
"""A reset above these is no delay but a moment: Unix seconds, or milliseconds."""

Names = tuple[istr, istr, istr]
"""Headers of a limit, of what remains, and of the reset."""


def _spell(names: str) -> Names:
    return istr(names.format("limit")), istr(names.format("remaining")), istr(names.format("reset"))


REQUESTS = tuple(
    _spell(names)
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
    _spell(names)
    for names in (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens-minute",
        "x-tokenlimit-{}",
    )
)

REMAINING = tuple(remaining for _, remaining, _ in (*REQUESTS, *TOKENS))


def parse_rate_headers(headers: Mapping[str, str]) -> RateLimitStatus | None:
    """Return what is left; `None` where the headers report nothing that makes sense."""
    if not any(map(headers.__contains__, REMAINING)):  # of many hosts, and then for every answer
        return None
    requests, tokens = _find_nearest(headers, REQUESTS), _find_nearest(headers, TOKENS)
    return None if requests is None and tokens is None else RateLimitStatus(requests or Remaining(), tokens or Remaining())


def _find_nearest(headers: Mapping[str, str], spellings: tuple[Names, ...]) -> Remaining | None:
    """Return the limit of which the least remains: a day's may be nearer than a minute's."""
    # A provider may send limits of a minute and of a day at once.
    limits = list(_parse_limits(headers, spellings))
    return min(limits, key=lambda left: MAX_COUNT if left.remaining is None else left.remaining, default=None)


def _parse_limits(headers: Mapping[str, str], spellings: tuple[Names, ...]) -> Iterator[Remaining]:
    for limit, remaining, reset in spellings:
        if remaining in headers:
            # Azure: a limit of 0 and a rest of -1 mean "not known".
            left = Remaining(
                _parse_count(headers.get(limit)) or None,
                _parse_count(headers.get(remaining)),
                _parse_reset_s(headers.get(reset), headers),
            )
            if left.limit is not None or left.remaining is not None:
                yield left


def _parse_count(text: str | None) -> int | None:
    number = parse_number(text)
    return int(number) if number is not None and 0 <= number <= MAX_COUNT else None


def _parse_reset_s(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Return seconds, however they are written."""
    if not text:
        return None
    number = parse_number(text)
    if number is None and DURATION.fullmatch(text):
        delay_s = parse_duration_s(text)
    else:
        delay_s = parse_rfc3339(text) if number is None else number / 1000 if number >= EPOCH_MS else number
        if delay_s is not None and delay_s >= EPOCH_S:
            delay_s = max(delay_s - read_server_time(headers), 0.0)  # the moment may just have passed
    return delay_s if delay_s is not None and 0 <= delay_s <= MAX_RESET_S else None
