"""Costs that providers state themselves, where each host states it."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.providers.mapping.reported_costs import read_cost_usd
from tests.support.openai_format import build_choice, decode_answer

ABSURD = [float("inf"), float("nan"), -1, -0.5, 2**70, 10**400, 1e300, 1e9, True, "0.5", None, [1], {"usd": 1}]


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        ({"cost": 0.00012}, 0.00012),
        ({"cost": 0}, 0),
        ({"cost": {"input_tokens_cost": 1e-05, "request_cost": 0.005, "total_cost": 0.00503}}, 0.00503),
        ({"cost": {"currency": "USD", "total_cost": 1}}, 1),
        ({"cost": {"currency": "EUR", "total_cost": 1}}, None),
        ({"cost": {"request_cost": 0.005}}, None),
        ({"cost_in_usd_ticks": 2_488_500}, 0.00024885),
        ({"cost_in_usd_ticks": 0}, None),  # Azure's Grok
        ({"estimated_cost": 2.68e-05}, 2.68e-05),
        ({"cost": 0.1, "cost_in_usd_ticks": 5}, 0.1),
        ({"cost": None, "cost_in_usd_ticks": 10**10}, 1),
        ({}, None),
    ],
    ids=str,
)
def test_a_cost_is_read_where_its_host_states_it(usage: dict[str, Any], usd: float | None) -> None:
    assert read_cost_usd(usage) == (usd if usd is None else pytest.approx(usd, abs=1e-15))


@pytest.mark.parametrize(
    ("cost", "is_byok", "upstream", "usd"),
    [
        (0, True, 6.3e-06, 6.3e-06),
        (1e-06, True, 6.3e-06, 7.3e-06),  # the router's fee, and what the caller's key is billed
        (0, True, None, None),  # what the caller's key was billed is not known
        (0, True, -1, None),
        (None, True, 0.5, 0.5),
        (0.5, False, 0.5, 0.5),  # of it the host's part is the whole
        (0, False, None, 0),  # a free model
        (0, False, 0, 0),
        (0, False, 0.25, 0.25),
        (0, None, 0.25, 0.25),
        (None, None, 0.25, 0.25),
    ],
)
def test_a_key_of_the_callers_own_is_not_free(
    cost: float | None, is_byok: bool | None, upstream: float | None, usd: float | None
) -> None:
    usage = {"cost": cost, "is_byok": is_byok, "cost_details": {"upstream_inference_cost": upstream}}
    assert read_cost_usd(usage) == (usd if usd is None else pytest.approx(usd, abs=1e-15))


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("name", ["cost", "cost_in_usd_ticks", "estimated_cost"])
def test_what_cannot_be_a_cost_states_none(name: str, value: Any) -> None:
    if name == "cost_in_usd_ticks" and value == 1e9:
        assert read_cost_usd({name: value}) == pytest.approx(0.1)
    else:
        assert read_cost_usd({name: value}) is None
    assert read_cost_usd({"cost": {"total_cost": value}}) is None
    assert read_cost_usd({"cost_details": {"upstream_inference_cost": value}, "is_byok": True}) is None


def test_a_stated_cost_is_a_usage_even_without_tokens() -> None:
    usage = decode_answer({"choices": [build_choice()], "usage": {"cost": {"total_cost": 0.5}}}).usage
    assert usage is not None
    assert (usage.reported_cost_usd, usage.input_tokens) == (0.5, None)
