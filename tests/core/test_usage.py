"""Sums of usage and cost of which some figures are unknown."""

from __future__ import annotations

import pytest

from fanout.core.usage import (
    MAX_TOKENS,
    Usage,
    UsageTotals,
    WorkTotals,
    keep_plausible_usage,
    sum_complete,
    sum_known,
    total_tokens,
)


def test_known_figures_are_summed_and_unknown_ones_counted() -> None:
    totals = UsageTotals()
    totals.add_answer(Usage(10, 5, 2), 0.5)
    totals.add_answer(Usage(1, None), 0.0)
    totals.add_answer(None, None)
    totals.add_failure()

    assert totals == UsageTotals(4, 11, 5, 2, unknown_usage=2, cost_usd=0.5, cost_unknown=1)


def test_a_sum_is_unknown_only_where_nothing_was_known() -> None:
    totals = UsageTotals()
    totals.add_answer(None, None)

    assert (totals.input_tokens, totals.cost_usd, totals.unknown_usage, totals.cost_unknown) == (None, None, 1, 1)


def test_totals_of_jobs_add_every_figure() -> None:
    totals = WorkTotals(1, 10, None, attempts=2, total_ms=300)
    totals.add(WorkTotals(2, 1, 7, attempts=1, total_ms=50))
    totals.add(WorkTotals(-1, total_ms=-50))

    assert totals == WorkTotals(2, 11, 7, attempts=3, total_ms=300)
    assert totals.as_columns() == {
        "calls": 2,
        "input_tokens": 11,
        "output_tokens": 7,
        "cached_tokens": None,
        "unknown_usage": 0,
        "cost_usd": None,
        "cost_unknown": 0,
        "attempts": 3,
        "total_ms": 300,
    }


@pytest.mark.parametrize(
    ("figures", "known", "complete"),
    [((1, 2), 3, 3), ((1, None), 1, None), ((None, None), None, None), ((0, 0), 0, 0)],
)
def test_a_missing_figure_is_left_out_or_makes_the_sum_unknown(
    figures: tuple[int | None, int | None], known: int | None, complete: int | None
) -> None:
    assert (sum_known(figures), sum_complete(figures), total_tokens(*figures)) == (known, complete, complete)


@pytest.mark.parametrize("tokens", [-1, MAX_TOKENS + 1])
def test_an_impossible_figure_counts_as_not_reported(tokens: int) -> None:
    assert keep_plausible_usage(Usage(tokens, 5, tokens, raw={"a": 1})) == Usage(None, 5, None, raw={"a": 1})
