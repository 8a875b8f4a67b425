"""Rate limit headers in every provider's spelling; a senseless value is unknown, and nothing is ever raised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from fanout.core.rate_limits import RateLimitStatus, Remaining
from fanout.providers.mapping.json_fields import MAX_COUNT
from fanout.providers.mapping.rate_headers import (
    MAX_RESET_S,
    REQUESTS,
    TOKENS,
    parse_rate_headers,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DATE = {"date": format_datetime(NOON, usegmt=True)}


def parse(**headers: str) -> RateLimitStatus | None:
    """The reading of these headers (`_` for `-`)."""
    return parse_rate_headers(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))


def parse_openai(remaining: str = "9", limit: str = "10", reset: str = "1s") -> Remaining:
    rate = parse(x_ratelimit_limit_requests=limit, x_ratelimit_remaining_requests=remaining, x_ratelimit_reset_requests=reset)
    return rate.requests if rate else Remaining()


def test_headers_of_openai_and_groq_are_read() -> None:
    rate = parse(
        x_ratelimit_limit_requests="500",
        x_ratelimit_remaining_requests="499",
        x_ratelimit_reset_requests="120ms",
        x_ratelimit_limit_tokens="30000",
        x_ratelimit_remaining_tokens="29970",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert rate == RateLimitStatus(Remaining(500, 499, 0.12), Remaining(30_000, 29_970, 360.0))


def test_headers_of_azure_are_read() -> None:
    """Seconds; −1 and a limit of 0 are its words for not knowing."""
    tokens = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_limit_tokens": "0", "x_ratelimit_reset_tokens": "7"}
    assert parse(x_ratelimit_remaining_requests="-1", **tokens) == RateLimitStatus(Remaining(), Remaining(None, 0, 7.0))
    assert parse(x_ratelimit_remaining_requests="-1", x_ratelimit_limit_requests="-1") is None


def test_headers_of_anthropic_are_read() -> None:
    """Moments, counted from the server's own clock."""
    headers = {
        f"anthropic-ratelimit-{what}-{word}": value
        for what, left, reset in (
            ("requests", "49", "2026-11-20T12:00:01.500Z"),
            ("tokens", "39000", "2026-11-20T13:01:00+01:00"),
        )
        for word, value in (("limit", "50000"), ("remaining", left), ("reset", reset))
    }
    assert parse_rate_headers(CIMultiDict({**DATE, **headers})) == RateLimitStatus(
        Remaining(50_000, 49, 1.5), Remaining(50_000, 39_000, 60.0)
    )


def test_headers_of_cerebras_and_mistral_are_read() -> None:
    """By the day and by the minute: the one of which less remains."""
    rate = parse(
        x_ratelimit_remaining_requests_minute="28",
        x_ratelimit_remaining_requests_day="7",
        x_ratelimit_limit_requests_day="1000",
        x_ratelimit_reset_requests_day="33011.382867",
    )
    assert rate == RateLimitStatus(Remaining(1000, 7, 33011.382867), Remaining())
    assert parse(x_ratelimit_remaining_req_minute="59", x_ratelimit_limit_req_minute="60") == RateLimitStatus(
        Remaining(60, 59), Remaining()
    )


@pytest.mark.parametrize(
    ("reset", "reset_s"),
    [
        ("3", 3.0),
        (f"{NOON.timestamp() + 5:.0f}", 5.0),
        (f"{(NOON.timestamp() + 5) * 1000:.0f}", 5.0),
        (f"{NOON.timestamp() - 5:.0f}", 0.0),
    ],
)
def test_headers_of_together_and_openrouter_are_read(reset: str, reset_s: float) -> None:
    """Seconds, or a moment in Unix seconds or milliseconds; one that has just passed is now."""
    headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    assert parse_rate_headers(CIMultiDict({**DATE, **headers})) == RateLimitStatus(Remaining(60, 0, reset_s), Remaining())


@pytest.mark.parametrize(
    "reset", ["", "soon", "-3", "-3s", "nan", "inf", "1e999", "5s ago", "ms", "2026-13-01T00:00:00Z", "9e8"]
)
def test_a_senseless_reset_is_unknown(reset: str) -> None:
    assert parse_openai(reset=reset) == Remaining(10, 9, None)


@pytest.mark.parametrize("count", ["", "many", "-1", "nan", "inf", "1e18", "0x10", "9,9"])
def test_a_senseless_count_is_unknown(count: str) -> None:
    assert parse_openai(remaining=count).remaining is None
    assert parse_openai(limit=count).limit is None
    assert parse_openai(remaining=count, limit=count) == Remaining()


@pytest.mark.parametrize(("reset", "reset_s"), [("0s", 0.0), ("1m30.5s", 90.5), ("1h2m3s", 3723.0), ("2d", 172_800.0)])
def test_durations_are_read(reset: str, reset_s: float) -> None:
    assert parse_openai(reset=reset).reset_s == reset_s


WORDS = st.one_of(st.text(max_size=40), st.integers().map(str), st.floats().map(str), st.from_regex(r"[\d.hms:TZ+-]{0,30}"))


@given(st.dictionaries(st.sampled_from([name for names in (*REQUESTS, *TOKENS) for name in names] + ["date"]), WORDS))
def test_any_headers_give_plausible_limits_or_none(headers: dict[str, str]) -> None:
    rate = parse_rate_headers(CIMultiDict(headers))
    for left in (rate.requests, rate.tokens) if rate else ():
        assert left.limit is None or 0 < left.limit <= MAX_COUNT
        assert left.remaining is None or 0 <= left.remaining <= MAX_COUNT
        assert left.reset_s is None or 0 <= left.reset_s <= MAX_RESET_S


def test_headers_without_limits_give_none() -> None:
    assert parse_rate_headers({"x-ratelimit-remaining-tokens": "5"}) == RateLimitStatus(Remaining(), Remaining(None, 5))
    assert parse_rate_headers({"content-type": "application/json"}) is None


def test_a_moment_without_a_zone_is_utc() -> None:
    headers = {"anthropic-ratelimit-requests-remaining": "1", "anthropic-ratelimit-requests-reset": "2026-11-20T12:00:30"}
    rate = parse_rate_headers(CIMultiDict({**headers, "date": format_datetime(NOON + timedelta(seconds=10), usegmt=True)}))
    assert rate
    assert rate.requests.reset_s == 20
