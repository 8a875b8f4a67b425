"""Comparisons: every answer in its place, sums of known figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.merge import merge, sum_usage
from fanout.core.sampling import Sampling
from fanout.core.schema import Answer, Call, Choice, Completion, Failure, Outcome, Query, Target, Timing
from fanout.core.usage import Cost, Usage, UsageTotals

FAILED = Failure("server", "overloaded")


def make_call(index: int = 0, n: int | None = None) -> Call:
    target = Target(label="m", name="m", provider="p", model="m")
    return Call(index, entry=index, sample=0, target=target, query=Query(prompt="Hello", sampling=Sampling(n=n)))


def make_answer(
    *texts: str, index: int = 0, n: int | None = None, usage: Usage | None = None, usd: float | None = None
) -> Outcome:
    choices = tuple(Choice(Answer(text), "stop") for text in texts or ("Hi",))
    cost = None if usd is None else Cost(usd, "reported")
    return Outcome(make_call(index, n), Completion(choices, usage), cost=cost)


def make_failure(index: int = 0, n: int | None = None) -> Outcome:
    return Outcome(make_call(index, n), FAILED)


def test_every_answer_keeps_its_place_with_failures_beside_successes() -> None:
    outcomes = [make_answer("a"), make_failure(1), make_answer("c", index=2)]
    comparison = merge(outcomes, created=1_700_000_000.9, total_s=1)
    assert [choice.index for choice in comparison.choices] == [0, 1, 2]
    assert [choice.choice and choice.choice.message.text for choice in comparison.choices] == ["a", None, "c"]
    assert [choice.outcome for choice in comparison.choices] == outcomes
    assert {choice.created for choice in comparison.choices} == {1_700_000_000}
    assert comparison.created == 1_700_000_000.9


def test_a_call_with_n_answers_takes_n_places() -> None:
    outcomes = [make_answer("a", "b", n=2), make_failure(2, n=3), make_answer("c", index=5)]
    choices = merge(outcomes, created=0, total_s=0).choices
    assert [(choice.index, choice.choice_index) for choice in choices] == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 2), (5, 0)]
    assert [choice.choice is None for choice in choices] == [False, False, True, True, True, False]


def test_surplus_answers_do_not_take_the_next_calls_place() -> None:
    choices = merge([make_answer("a", "more", "and more"), make_answer("b", index=1)], created=0, total_s=0).choices
    assert [(choice.index, choice.choice and choice.choice.message.text) for choice in choices] == [(0, "a"), (1, "b")]


def test_metadata_is_passed_through() -> None:
    assert merge([], created=0, total_s=0, metadata={"run": "7"}).metadata == {"run": "7"}
    assert merge([], created=0, total_s=0).metadata == {}


@pytest.mark.parametrize(
    ("total_s", "calls_s", "overhead_s"),
    [(2.5, [1.0, 2.0], 0.5), (2.0, [2.0], 0.0), (1.9, [2.0], 0.0), (0.25, [], 0.25)],
)
def test_overhead_is_the_time_of_the_request_beyond_its_slowest_call(
    total_s: float, calls_s: list[float], overhead_s: float
) -> None:
    """A failed call's time counts too, and clocks that disagree give no negative time."""
    outcomes = [replace(make_failure(number), timing=Timing(total_s=spent_s)) for number, spent_s in enumerate(calls_s)]
    comparison = merge(outcomes, created=0, total_s=total_s)
    assert (comparison.total_s, comparison.overhead_s) == (total_s, overhead_s)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], UsageTotals()),
        ([make_failure()], UsageTotals(1)),
        ([make_answer()], UsageTotals(1, unknown_usage=1, cost_unknown=1)),
        ([make_answer(), make_answer()], UsageTotals(2, unknown_usage=2, cost_unknown=2)),
        ([make_answer(usage=Usage(0, 0, 0), usd=0.0)], UsageTotals(1, 0, 0, 0, cost_usd=0.0)),
        (
            [make_answer(usage=Usage(10, 5), usd=0.5), make_answer(usage=Usage(1, 2, 1), usd=0.25), make_failure()],
            UsageTotals(3, 11, 7, 1, cost_usd=0.75),
        ),
        (
            [make_answer(usage=Usage(10, 5), usd=0.5), make_answer()],
            UsageTotals(2, 10, 5, unknown_usage=1, cost_usd=0.5, cost_unknown=1),
        ),
        (
            [make_answer(usage=Usage(10, None)), make_answer(usage=Usage(None, 3))],
            UsageTotals(2, 10, 3, unknown_usage=2, cost_unknown=2),
        ),
        ([make_answer("a", "b", n=2, usage=Usage(10, 5), usd=1.0)], UsageTotals(1, 10, 5, cost_usd=1.0)),
    ],
)
def test_totals_sum_known_figures_and_count_unknown_ones(outcomes: list[Outcome], expected: UsageTotals) -> None:
    assert sum_usage(outcomes) == expected


tokens = st.none() | st.integers(0, 10**9)
usages = st.none() | st.builds(Usage, tokens, tokens, tokens)
completions = st.builds(
    lambda n, usage, usd: make_answer(*"x" * n, n=n, usage=usage, usd=usd),
    st.integers(1, 4),
    usages,
    st.none() | st.integers(0, 1000).map(float),
)
failures = st.builds(lambda n: make_failure(n=n), st.none() | st.integers(1, 4))


def assign_indices(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes with the indices that `plan` would assign."""
    made, index = [], 0
    for outcome in outcomes:
        made.append(replace(outcome, call=replace(outcome.call, index=index)))
        index += outcome.call.query.sampling.n or 1
    return made


@given(st.lists(completions | failures, max_size=12))
def test_positions_are_dense_and_a_sum_is_null_only_where_nothing_was_known(unplaced: list[Outcome]) -> None:
    outcomes = assign_indices(unplaced)
    comparison = merge(outcomes, created=0, total_s=0)
    assert [choice.index for choice in comparison.choices] == list(range(len(comparison.choices)))
    assert len(comparison.choices) == sum(outcome.call.query.sampling.n or 1 for outcome in outcomes)
    assert all((choice.choice is None) == isinstance(choice.outcome.result, Failure) for choice in comparison.choices)
    done = [outcome for outcome in outcomes if isinstance(outcome.result, Completion)]
    known = [outcome.result.usage for outcome in done if isinstance(outcome.result, Completion) and outcome.result.usage]
    sums = comparison.totals
    for total, name in ((sums.input_tokens, "input_tokens"), (sums.output_tokens, "output_tokens")):
        counts = [getattr(usage, name) for usage in known if getattr(usage, name) is not None]
        assert total == (sum(counts) if counts else None)
    whole = [usage for usage in known if usage.input_tokens is not None and usage.output_tokens is not None]
    assert sums.unknown_usage == len(done) - len(whole)
    costs = [outcome.cost.usd for outcome in done if outcome.cost]
    assert sums.cost_usd == (sum(costs) if costs else None)
    assert sums.cost_unknown == len(done) - len(costs)
