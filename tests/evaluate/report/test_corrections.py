"""A judge's figures, corrected by people's labels on some of the same answers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fanout.evaluate.judging.judging import Verdicts
from fanout.evaluate.report.corrections import correct_preferences, correct_scores
from fanout.evaluate.report.measures import JudgeMeasures
from fanout.evaluate.report.preferences import Judgement
from fanout.store.jobs.records import ScorerRow
from fanout.store.votes import VoteRow

NAMES = {0: "a", 1: "b"}


def make_judge(verdicts: Verdicts) -> JudgeMeasures:
    row = ScorerRow(1, "judge", "judge/1", "{}", is_bounded=True, is_higher_better=True)
    return JudgeMeasures(row, "up/judge", "score", "random", verdicts, None)


def vote(item: int, choice: Any, entries: tuple[int, int] = (0, 1)) -> VoteRow:
    first, second = entries
    return VoteRow(
        number=item,
        id=f"vote_{item}",
        drawn=0.0,
        account_id="",
        rater="",
        kind="pair",
        job_id="job_1",
        comparison_id=None,
        item=item,
        entry_a=first,
        repeat_a=0,
        model_a=NAMES[first],
        entry_b=second,
        repeat_b=0,
        model_b=NAMES[second],
        voted=1.0,
        choice=choice,
        score=None,
    )


def test_a_judge_that_flatters_one_model_is_corrected_and_so_is_the_difference() -> None:
    generator = random.Random(3)
    truth = {(item, entry): generator.choice([0.25, 0.5, 0.75]) for item in range(200) for entry in NAMES}
    verdicts: Verdicts = {f"{item}/{entry}.0": (value + 0.25 * entry, None) for (item, entry), value in truth.items()}
    verdicts |= {"0/0.0~again": (0.0, None), "199/1.0": (None, "unreadable")}
    labels = {(item, entry, 0): truth[item, entry] for item in range(0, 200, 4) for entry in NAMES}
    a, b, difference = correct_scores(make_judge(verdicts), labels, NAMES)

    assert [(one.a, one.b, one.corrected.labels) for one in (a, b, difference)] == [
        ("a", None, 50),
        ("b", None, 50),
        ("a", "b", 50),
    ]
    assert (b.items, difference.items) == (199, 199)
    assert b.judged - a.judged > 0.2
    assert difference.corrected.estimate.value == pytest.approx(difference.judged + 0.25)
    assert abs(difference.corrected.estimate.value or 1) < 0.05


def test_of_repeats_only_those_that_people_labelled_stand_beside_their_labels() -> None:
    verdicts: Verdicts = {
        f"{item}/{entry}.{repeat}": (float(repeat), None) for item in range(40) for entry in NAMES for repeat in (0, 1)
    }
    labels = {(item, 0, 1): 1.0 for item in range(20)}
    (a,) = correct_scores(make_judge(verdicts), labels, NAMES)

    assert (a.a, a.b, a.items) == ("a", None, 40)
    assert a.judged == pytest.approx((20 * 1.0 + 20 * 0.5) / 40)


def test_win_rates_are_corrected_by_votes_in_whichever_order_they_were_shown() -> None:
    judgements = [Judgement((item, 0, 0), (item, 1, 0), "a" if item % 3 else "b") for item in range(90)]
    votes = [vote(item, "a" if item % 6 else "b") for item in range(0, 60, 2)]
    votes += [vote(item, "b" if item % 6 else "a", (1, 0)) for item in range(1, 60, 2)]
    (found,) = correct_preferences(judgements, votes, NAMES)
    (turned,) = correct_preferences(judgements, [one._replace(choice="tie") for one in votes], NAMES)

    assert (found.a, found.b, found.items, found.corrected.labels) == ("a", "b", 90, 60)
    assert found.judged == pytest.approx(60 / 90)
    # Of the twenty that the judge gives to B, people give half to A; with all of A's they agree.
    assert found.corrected.estimate.method == "judged rate, Rogan–Gladen"
    assert found.corrected.estimate.value == pytest.approx((60 + 15) / 90)
    assert (turned.corrected.estimate.value, turned.corrected.estimate.method) == (0.5, "mean, PPI++")


def test_without_a_label_there_is_nothing_to_correct() -> None:
    assert correct_scores(make_judge({"0/0.0": (1.0, None)}), {}, NAMES) == []
    assert correct_preferences([Judgement((0, 0, 0), (0, 1, 0), "a")], [vote(1, "a")], NAMES) == []
