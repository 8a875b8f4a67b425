"""Gates: a candidate that is as good passes, a worse one fails, too few items are inconclusive."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.decisions.gate import judge_gate
from fanout.evaluate.decisions.options import GateOptions
from tests.support.builders.measures import ABSENT, COST, FAILED, build_measures


def judge(scores: Mapping[str, Sequence[float | str | None]], margin: float = 0.02, **options: object) -> tuple[str, str]:
    measures = build_measures(scores, **options)  # type: ignore[arg-type]
    gate = judge_gate(measures, GateOptions("new", "old", margin))
    return gate.verdict.state, gate.verdict.sentence


def test_fewer_than_one_in_fifty_unchanged_runs_fail() -> None:
    """Four hundred runs of two equal models that are right on four items of five, independently of each other."""
    generator = random.Random(7)
    states = []
    for _ in range(400):
        scores = {name: [float(generator.random() < 0.8) for _ in range(200)] for name in ("new", "old")}
        states.append(judge(scores)[0])

    assert states.count("fail") < 8, states.count("fail")
    assert set(states) <= {"pass", "fail", "inconclusive"}


def test_a_candidate_that_answers_as_the_baseline_does_passes_with_items_enough() -> None:
    bounded = [0.5, 0.25, 1.0, 0.0] * 50
    state, sentence = judge({"new": bounded, "old": bounded})
    few, _ = judge({"new": bounded[:40], "old": bounded[:40]})

    assert (state, few) == ("pass", "inconclusive")
    assert "[-0.0183, +0.0183] over 200 items" in sentence


def test_a_worse_candidate_fails_and_few_items_never_pass() -> None:
    assert judge({"new": [0.0] * 60 + [1.0] * 140, "old": [1.0] * 200})[0] == "fail"
    state, sentence = judge({"new": [1.0] * 14, "old": [1.0] * 14})
    assert (state, "14 items are too few" in sentence) == ("inconclusive", True)


def test_of_costs_less_is_better() -> None:
    cheap = [0.001 + 0.0001 * (number % 3) for number in range(40)]
    dear = [value + 0.01 + 0.0001 * (number % 2) for number, value in enumerate(cheap)]

    assert judge({"new": cheap, "old": dear}, 0.001, scorer=COST)[0] == "pass"
    assert judge({"new": dear, "old": cheap}, 0.001, scorer=COST)[0] == "fail"


def test_a_job_that_has_not_ended_is_inconclusive() -> None:
    state, sentence = judge({"new": [1.0] * 199 + [ABSENT], "old": [1.0] * 200})

    assert (state, sentence.partition(": ")[2]) == ("inconclusive", "399 of 400 calls have ended (the job is done)")


def test_failures_count_by_the_jobs_policy_and_dropped_items_are_named() -> None:
    scores: dict[str, Sequence[float | str | None]] = {"new": [FAILED] * 60 + [1.0] * 340, "old": [1.0] * 400}

    assert judge(scores)[0] == "fail"
    state, sentence = judge(scores, failed="drop_item")
    assert (state, sentence.endswith("; 60 items dropped")) == ("pass", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (GateOptions("old1", "old", 0.1), "`old1` is not a model of the job; did you mean `old`?; known: new, old"),
        (GateOptions("new", "new", 0.1), "`new` is the model itself"),
        (GateOptions("new", "old", 0.1, "exat"), "`exat` is not a metric of the job; did you mean `exact`?"),
    ],
)
def test_a_wrong_name_is_named_with_what_there_is(options: GateOptions, message: str) -> None:
    measures = build_measures({"new": [1.0] * 20, "old": [1.0] * 20})
    with pytest.raises(RequestError) as refused:
        judge_gate(measures, options)

    assert message in str(refused.value)
