"""Which failures are tried again, after how long, and how often: the rules alone, without an upstream."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fanout.config.providers_file import RetriesRow
from fanout.core.schema import Answer, Choice, Completion, Failure, FailureKind
from fanout.dispatch.retries import compute_delay_s, is_transient, retry

ANSWER = Completion((Choice(Answer("fine"), "stop"),))
FAR = 3600.0


def failure(kind: FailureKind = "server", **fields: Any) -> Failure:
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
def test_only_what_may_pass_is_tried_again(kind: FailureKind, status: int | None, expected: bool) -> None:
    assert is_transient(failure(kind, status=status)) is expected


def test_the_providers_own_word_comes_first() -> None:
    assert is_transient(failure("bad_request", status=400, should_retry=True))
    assert not is_transient(failure("server", status=503, should_retry=False))


def test_a_quota_that_is_used_up_stays_so_whatever_the_provider_says() -> None:
    assert not is_transient(failure("quota", status=429, should_retry=True))


def test_our_own_full_queue_is_not_tried_again() -> None:
    assert not is_transient(failure("rate_limit", code="queue_too_long", retry_after_s=1))


def test_the_wait_is_the_providers_even_above_our_longest() -> None:
    row = RetriesRow(max_delay_s=1)
    assert compute_delay_s(failure(retry_after_s=20), 1, row) == 20
    assert compute_delay_s(failure(retry_after_s=0), 5, row) == 0


def test_our_own_wait_has_full_jitter_doubles_and_is_capped() -> None:
    """0 to 0.5 s, to 1 s, to 2 s, … to the cap: each over its whole range, and never beyond."""
    row = RetriesRow(max_delay_s=3)
    for attempt, longest_s in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (9, 3.0)):
        waits = [compute_delay_s(failure(), attempt, row) for _ in range(2_000)]
        assert 0 <= min(waits) < 0.05 * longest_s
        assert 0.95 * longest_s < max(waits) <= longest_s


class Attempts:
    """Answers with `results` in turn, and remembers what was told."""

    def __init__(self, *results: Completion | Failure) -> None:
        self.results = list(results)
        self.made = 0
        self.told: list[tuple[Failure, int, float]] = []

    async def __call__(self) -> Completion | Failure:
        self.made += 1
        return self.results.pop(0)

    async def after(self, first: Failure, *, within_s: float = FAR, **row: Any) -> Completion | Failure:
        return await retry(
            first,
            self,
            row=RetriesRow(**{"max_delay_s": 0.01, **row}),
            deadline=time.monotonic() + within_s,
            before_sleep=lambda *event: self.told.append(event),
        )


async def test_it_ends_with_the_first_answer() -> None:
    first, second = failure(status=500), failure(status=503)
    attempts = Attempts(second, ANSWER, ANSWER)

    assert await attempts.after(first, attempts=5) is ANSWER
    assert attempts.made == 2
    assert [(told, number) for told, number, _ in attempts.told] == [(first, 1), (second, 2)]
    assert all(0 <= waited_s <= 0.01 for *_, waited_s in attempts.told)


async def test_it_ends_with_the_last_attempt_and_its_failure() -> None:
    """The first try is counted among the three."""
    last = failure(status=529)
    attempts = Attempts(failure(), last, ANSWER)

    assert await attempts.after(failure(), attempts=3) is last
    assert attempts.made == 2


async def test_one_attempt_means_no_retry() -> None:
    first, attempts = failure(), Attempts(ANSWER)

    assert await attempts.after(first, attempts=1) is first
    assert (attempts.made, attempts.told) == (0, [])


async def test_it_ends_with_a_failure_that_will_not_pass() -> None:
    final = failure("auth", status=401)
    attempts = Attempts(final, ANSWER)

    assert await attempts.after(failure(), attempts=5) is final
    assert attempts.made == 1


async def test_it_does_not_wait_for_a_retry_past_the_deadline() -> None:
    first, attempts = failure(retry_after_s=2), Attempts(ANSWER)

    start = time.monotonic()
    assert await attempts.after(first, within_s=1, attempts=5) is first
    assert time.monotonic() - start < 0.5
    assert (attempts.made, attempts.told) == (0, [])


async def test_it_waits_as_long_as_it_says() -> None:
    attempts = Attempts(ANSWER)

    start = time.monotonic()
    await attempts.after(failure(retry_after_s=0.1))
    assert time.monotonic() - start >= 0.1
    assert attempts.told[0][2] == 0.1


async def test_whoever_calls_may_forbid_a_retry() -> None:
    """As after the first piece of a stream is out."""
    first, attempts = failure(), Attempts(ANSWER)

    result = await retry(
        first, attempts, row=RetriesRow(), deadline=time.monotonic() + FAR, may_retry=lambda _: False, before_sleep=print
    )
    assert result is first
    assert attempts.made == 0


async def test_a_bug_in_an_attempt_is_not_tried_again() -> None:
    class Broken(Attempts):
        async def __call__(self) -> Completion | Failure:
            self.made += 1
            raise KeyError("bug")

    attempts = Broken()
    with pytest.raises(KeyError):
        await attempts.after(failure())
    assert attempts.made == 1
