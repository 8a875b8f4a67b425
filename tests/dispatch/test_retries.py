"""The rules of retries, without an upstream: which failures, after how long, and how often."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fanout.config.providers_file import RetriesRow
from fanout.core.schema import Answer, Choice, Completion, Failure, FailureKind
from fanout.dispatch.retries import compute_delay_s, is_transient, retry
from tests.support.timing import timed

ANSWER = Completion((Choice(Answer("fine"), "stop"),))
FAR = 3600.0


def build_failure(kind: FailureKind = "server", **fields: Any) -> Failure:
    return Failure(kind, "it failed", **fields)


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("network", None, True),
        ("timeout", None, True),
        ("server", None, True),
        ("rate_limit", None, True),
        ("timeout", 408, True),
        ("server", 409, True),
        ("rate_limit", 429, True),
        ("rate_limit", 402, True),
        ("server", 498, True),
        ("auth", 498, False),
        *((("server", status, True)) for status in (500, 502, 503, 504, 529)),
        *((("server", status, False)) for status in (424, 501, 505)),
        ("quota", 402, False),
        ("quota", 429, False),
        ("content_filter", 429, False),
        ("bad_request", 400, False),
        ("bad_request", 500, False),
        ("auth", 401, False),
        ("not_found", 404, False),
        ("not_found", 503, False),
        ("malformed", None, False),
        ("unsupported", None, False),
        ("cancelled", None, False),
        ("internal", None, False),
        ("not_configured", None, False),
    ],
)
def test_only_failures_that_may_pass_are_transient(kind: FailureKind, status: int | None, expected: bool) -> None:
    assert is_transient(build_failure(kind, status=status)) is expected


def test_the_providers_header_about_retries_takes_precedence() -> None:
    assert is_transient(build_failure("bad_request", status=400, should_retry=True))
    assert not is_transient(build_failure("server", status=503, should_retry=False))


def test_an_exhausted_quota_is_final_whatever_the_provider_says() -> None:
    assert not is_transient(build_failure("quota", status=429, should_retry=True))


def test_our_own_full_queue_is_not_retried() -> None:
    assert not is_transient(build_failure("rate_limit", code="queue_too_long", retry_after_s=1))


def test_the_providers_wait_is_kept_even_above_our_maximum() -> None:
    row = RetriesRow(max_delay_s=1)
    assert compute_delay_s(build_failure(retry_after_s=20), 1, row) == 20
    assert compute_delay_s(build_failure(retry_after_s=0), 5, row) == 0


@timed
def test_our_own_wait_has_full_jitter_doubles_and_is_capped() -> None:
    """The ranges are 0 to 0.5 s, to 1 s, to 2 s, … to the maximum: each is used as a whole and never exceeded."""
    row = RetriesRow(max_delay_s=3)
    for attempt, longest_s in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (9, 3.0)):
        waits = [compute_delay_s(build_failure(), attempt, row) for _ in range(2_000)]
        assert 0 <= min(waits) < 0.05 * longest_s
        assert 0.95 * longest_s < max(waits) <= longest_s


class ScriptedAttempts:
    """Attempts that return `results` in turn; the announcements of retries are kept."""

    def __init__(self, *results: Completion | Failure) -> None:
        self.results = list(results)
        self.made = 0
        self.notified: list[tuple[Failure, int, float]] = []

    async def __call__(self) -> Completion | Failure:
        self.made += 1
        return self.results.pop(0)

    async def run_after(self, first: Failure, *, within_s: float = FAR, **row: Any) -> Completion | Failure:
        return await retry(
            first,
            self,
            row=RetriesRow(**{"max_delay_s": 0.01, **row}),
            deadline=time.monotonic() + within_s,
            before_sleep=lambda *event: self.notified.append(event),
        )


@timed
async def test_retrying_ends_with_the_first_answer() -> None:
    first, second = build_failure(status=500), build_failure(status=503)
    attempts = ScriptedAttempts(second, ANSWER, ANSWER)

    assert await attempts.run_after(first, attempts=5) is ANSWER
    assert attempts.made == 2
    assert [(failed, number) for failed, number, _ in attempts.notified] == [(first, 1), (second, 2)]
    assert all(0 <= waited_s <= 0.01 for *_, waited_s in attempts.notified)


async def test_retrying_ends_with_the_last_attempt_and_its_failure() -> None:
    """The first attempt is one of the three."""
    last = build_failure(status=529)
    attempts = ScriptedAttempts(build_failure(), last, ANSWER)

    assert await attempts.run_after(build_failure(), attempts=3) is last
    assert attempts.made == 2


async def test_one_attempt_means_no_retry() -> None:
    first, attempts = build_failure(), ScriptedAttempts(ANSWER)

    assert await attempts.run_after(first, attempts=1) is first
    assert (attempts.made, attempts.notified) == (0, [])


async def test_retrying_ends_with_a_failure_that_will_not_pass() -> None:
    final = build_failure("auth", status=401)
    attempts = ScriptedAttempts(final, ANSWER)

    assert await attempts.run_after(build_failure(), attempts=5) is final
    assert attempts.made == 1


@timed
async def test_a_retry_past_the_deadline_is_not_waited_for() -> None:
    first, attempts = build_failure(retry_after_s=2), ScriptedAttempts(ANSWER)

    start = time.monotonic()
    assert await attempts.run_after(first, within_s=1, attempts=5) is first
    assert time.monotonic() - start < 0.5
    assert (attempts.made, attempts.notified) == (0, [])


async def test_the_wait_before_a_retry_is_as_long_as_announced() -> None:
    attempts = ScriptedAttempts(ANSWER)

    start = time.monotonic()
    await attempts.run_after(build_failure(retry_after_s=0.1))
    assert time.monotonic() - start >= 0.1
    assert attempts.notified[0][2] == 0.1


async def test_the_caller_may_forbid_a_retry() -> None:
    """The dispatcher does so after the first piece of a stream."""
    first, attempts = build_failure(), ScriptedAttempts(ANSWER)

    result = await retry(
        first, attempts, row=RetriesRow(), deadline=time.monotonic() + FAR, may_retry=lambda _: False, before_sleep=print
    )
    assert result is first
    assert attempts.made == 0


async def test_a_bug_in_an_attempt_is_not_retried() -> None:
    class Broken(ScriptedAttempts):
        async def __call__(self) -> Completion | Failure:
            self.made += 1
            raise KeyError("bug")

    attempts = Broken()
    with pytest.raises(KeyError):
        await attempts.run_after(build_failure())
    assert attempts.made == 1
