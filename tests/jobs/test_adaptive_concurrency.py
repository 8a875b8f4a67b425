"""How many calls at once: against an account that bears so many and no more."""

from __future__ import annotations

import random

import pytest

from fanout.jobs.adaptive_concurrency import INITIAL_CONCURRENCY, AdaptiveConcurrency


def after(pace: AdaptiveConcurrency, bears: int, rounds: int, *, slows: bool = False) -> list[int]:
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


def test_it_doubles_while_all_goes_well_up_to_what_is_allowed() -> None:
    assert after(AdaptiveConcurrency(maximum=64), 1000, 6) == [8, 16, 32, 64, 64, 64]


@pytest.mark.parametrize("bears", [6, 20, 50])
def test_it_finds_what_an_account_bears_and_stays_near(bears: int) -> None:
    found = after(AdaptiveConcurrency(maximum=256), bears, 200)[50:]

    assert bears * 0.5 < sum(found) / len(found) <= bears * 1.2
    assert max(found) <= bears + 2


def test_it_yields_where_answers_take_longer_and_longer() -> None:
    found = after(AdaptiveConcurrency(maximum=256), 20, 300, slows=True)[50:]

    assert 20 < sum(found) / len(found) < 60


def test_answers_that_are_slow_for_another_reason_do_not_hold_it_back() -> None:
    pace, now = AdaptiveConcurrency(maximum=64), 0.0
    for number in range(200):
        took_s, started = (1.0 if number < 20 else 5.0), now
        now += took_s
        for _ in range(pace.limit):
            pace.record_answer(started, now)

    assert pace.limit > 50


def test_one_refusal_of_a_round_counts_once() -> None:
    pace = AdaptiveConcurrency(maximum=64, size=20)
    for _ in range(20):
        pace.record_refusal(started=1.0, now=2.0)

    assert pace.limit == 12


def test_a_pace_that_is_not_made_use_of_does_not_grow() -> None:
    pace = AdaptiveConcurrency(maximum=64)
    for number in range(100):
        pace.record_answer(number, number + 1.0, filled=False)

    assert pace.limit == INITIAL_CONCURRENCY


def test_it_never_stops_and_never_exceeds() -> None:
    dice, pace = random.Random(1), AdaptiveConcurrency(maximum=32)
    for number in range(5_000):
        (pace.record_refusal if dice.random() < 0.3 else pace.record_answer)(number, number + dice.random() * 9)
        assert 1 <= pace.limit <= 32
