"""Two jobs as one: rows by their ids or their places, and what must not be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.decisions.gate import judge_gate
from fanout.evaluate.decisions.options import GateOptions
from fanout.evaluate.decisions.pairing import ChosenPair, RowIdentity, describe_pairs, merge_jobs, pair_rows
from tests.support.builders.measures import EXACT, build_measures


def row(custom_id: str | None, prompt: str = "p", reference: str = "r", values: str = "") -> RowIdentity:
    return RowIdentity(custom_id, prompt.encode(), reference.encode(), values.encode())


def test_rows_are_paired_by_id_in_whichever_order_and_those_without_a_partner_are_named() -> None:
    found = pair_rows([row("a"), row("b"), row("new"), row("c", "q", "s")], [row("c"), row("a"), row("old")], "job_0")

    assert found.pairs == [(0, 1), (3, 0)]
    assert describe_pairs(found, "job_1", "job_0") == [
        "2 rows of job_1 have no partner in job_0 and are left out: `b`, `new`",
        "1 rows of job_0 have no partner in job_1 and are left out: `old`",
        "1 of 2 prompts differ between the two jobs",
        "1 of 2 references differ between the two jobs",
    ]


def test_rows_without_an_id_are_paired_by_place_if_they_are_the_same() -> None:
    rows = [row(None, f"p{number}") for number in range(9)]
    found = pair_rows(rows, rows[:3], "job_0")
    templated = pair_rows([row(None, "new", "r", "x=1")], [row(None, "old", "r", "x=1")], "job_0")

    assert found.pairs == [(0, 0), (1, 1), (2, 2)]
    assert describe_pairs(found, "job_1", "job_0") == [
        "6 rows of job_1 have no partner in job_0 and are left out: row 4, row 5, row 6, row 7, row 8 and 1 more"
    ]
    assert (templated.pairs, templated.other_prompts) == ([(0, 0)], 1)


@pytest.mark.parametrize(
    ("rows", "earlier", "message"),
    [
        (
            [row(None, "p1"), row(None, "p2")],
            [row(None, "p0"), row(None, "p1")],
            "row 1, row 2 have another prompt",
        ),
        ([row(None, "p", "r")], [row(None, "p", "s")], "row 1 have another prompt or reference in `job_0`"),
        ([row("a")], [row("b")], "no row of `job_0` has the `custom_id` of a row of this job"),
        ([row(None)], [row("b")], "no row of `job_0` has the `custom_id` of a row of this job"),
    ],
)
def test_rows_that_are_not_the_same_are_refused(rows: list[RowIdentity], earlier: list[RowIdentity], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        pair_rows(rows, earlier, "job_0")

    assert message in str(refused.value)


def test_a_model_is_gated_against_its_own_earlier_answers_on_the_rows_that_both_jobs_have() -> None:
    now = build_measures({"a": [1.0] * 30 + [0.0] * 10, "z": [0.0] * 40})
    then = build_measures({"y": [0.0] * 40, "a": [0.0] * 40}, scorer=EXACT._replace(scorer=7))
    then = replace(then, job=replace(then.job, id="job_then"))
    pairs = pair_rows([row(f"r{n}") for n in range(40)], [row(f"r{39 - n}") for n in range(40)], "job_then")
    merged, name = merge_jobs(now, then, pairs, ChosenPair("a", "a", None))
    gate = judge_gate(merged, GateOptions("a", name, 0.02))

    assert name == "a of job_then"
    assert (gate.verdict.state, gate.test.difference.value, gate.test.difference.n) == ("pass", 0.75, 40)


def test_scores_of_another_scorer_and_failures_of_another_policy_are_refused() -> None:
    now = build_measures({"a": [1.0] * 20})
    other = build_measures({"a": [1.0] * 20}, scorer=EXACT._replace(version="exact/2/abc"), failed="drop_item")
    pairs = pair_rows([row("r")], [row("r")], "job_made")
    with pytest.raises(RequestError) as refused:
        merge_jobs(now, other, pairs, ChosenPair("a", "a", None))

    assert [fault.path for fault in refused.value.faults] == ["metric", "baseline_job"]
    assert "score both jobs by the same scorer" in str(refused.value)
    with pytest.raises(RequestError, match="`b` is not a model of the job"):
        merge_jobs(now, now, pairs, ChosenPair("a", "b", None))
