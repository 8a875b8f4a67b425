"""Adaptive concurrency, against an account that bears a fixed number of calls."""

from __future__ import annotations

import random

import pytest

from fanout.jobs.adaptive_concurrency import INITIAL_CONCURRENCY, AdaptiveConcurrency


def run_rounds(pace: AdaptiveConcurrency, bears: int, rounds: int, *, slows: bool = False) -> list[int]:
    """The pace after each round of calls, a second each, before an account that refuses or `slows` above what it `bears`."""
    now, found = 0.0, []
    for _ in range(rounds):
        started, count = now, pace.limit
        took_s = max(1.0, count / bears) if slows else 1.0
        now += took_s
        for number in range(count):
            if number < bears or slows:
                pace.record_answer(started, now)
            else:
                pace.record_refusal(started, now)
        found.append(pace.limit)
    return found


def test_concurrency_doubles_up_to_the_maximum_while_all_goes_well() -> None:
    assert run_rounds(AdaptiveConcurrency(maximum=64), 1000, 6) == [8, 16, 32, 64, 64, 64]


@pytest.mark.parametrize("bears", [6, 20, 50])
def test_concurrency_settles_near_what_an_account_bears(bears: int) -> None:
    found = run_rounds(AdaptiveConcurrency(maximum=256), bears, 200)[50:]

    assert bears * 0.5 < sum(found) / len(found) <= bears * 1.2
    assert max(found) <= bears + 2


def test_concurrency_decreases_where_answers_become_slower() -> None:
    found = run_rounds(AdaptiveConcurrency(maximum=256), 20, 300, slows=True)[50:]

    assert 20 < sum(found) / len(found) < 60


def test_answers_that_are_slow_for_another_reason_do_not_decrease_it() -> None:
    pace, now = AdaptiveConcurrency(maximum=64), 0.0
    for number in range(200):
        took_s, started = (1.0 if number < 20 else 5.0), now
        now += took_s
        for _ in range(pace.limit):
            pace.record_answer(started, now)

    assert pace.limit > 50


def test_refusals_of_one_round_decrease_it_once() -> None:
    pace = AdaptiveConcurrency(maximum=64, size=20)
    for _ in range(20):
        pace.record_refusal(started=1.0, now=2.0)

    assert pace.limit == 12


def test_a_concurrency_that_is_not_used_does_not_grow() -> None:
    pace = AdaptiveConcurrency(maximum=64)
    for number in range(100):
        pace.record_answer(number, number + 1.0, filled=False)

    assert pace.limit == INITIAL_CONCURRENCY


def test_concurrency_always_stays_between_one_and_the_maximum() -> None:
    dice, pace = random.Random(1), AdaptiveConcurrency(maximum=32)
    for number in range(5_000):
        (pace.record_refusal if dice.random() < 0.3 else pace.record_answer)(number, number + dice.random() * 9)
        assert 1 <= pace.limit <= 32
