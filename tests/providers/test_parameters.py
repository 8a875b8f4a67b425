"""Fitting of a caller's parameters to one wire format."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.config.providers_file import ParametersRow
from fanout.core.sampling import Sampling
from fanout.core.schema import FittedParameters, Query
from fanout.providers.parameter_tables import OPENAI_CHAT, OPENAI_TEXT
from fanout.providers.parameters import Rule, Table, accept, fit

DEFAULTS = ParametersRow()


def fit_parameters(
    table: Table = OPENAI_CHAT,
    row: ParametersRow = DEFAULTS,
    *,
    passthrough: dict[str, Any] | None = None,
    takes: frozenset[str] | None = frozenset(),
    defaults: frozenset[str] = frozenset(),
    **sampling: Any,
) -> FittedParameters:
    query = Query(prompt="p", sampling=Sampling(**sampling), passthrough=passthrough or {}, defaults=defaults)
    return fit(query, accept(table, row, takes))


def test_no_parameter_is_sent_that_the_caller_did_not_set() -> None:
    """The provider's defaults apply, or the comparison would not be fair."""
    assert fit_parameters() == FittedParameters({}, (), {})


def test_a_parameter_that_the_caller_set_is_sent_unchanged() -> None:
    """Zero and false are values like any other."""
    fitted = fit_parameters(
        OPENAI_TEXT, max_tokens=5, temperature=0.0, top_p=1.0, seed=-3, echo=True, stop=("a", "b"), logprobs=0
    )
    assert fitted.sent == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": -3,
        "echo": True,
        "stop": ("a", "b"),
        "logprobs": 0,
    }
    assert (fitted.ignored, fitted.adjusted) == ((), {})


def test_a_parameter_outside_the_table_is_ignored_by_name() -> None:
    """Names are in the order of the parameters, followed by the caller's other fields."""
    fitted = fit_parameters(top_k=5, echo=True, suffix="!", passthrough={"min_p": 0.1})
    assert fitted.sent == {}
    assert fitted.ignored == ("top_k", "echo", "suffix", "min_p")


def test_a_contracts_default_is_dropped_silently() -> None:
    """The caller did not set it, so nothing of the caller's was ignored."""
    assert fit_parameters({}, max_tokens=16, top_k=1, defaults=frozenset({"max_tokens"})).ignored == ("top_k",)


@pytest.mark.parametrize(
    "neutral",
    [{"n": 1}, {"best_of": 0}, {"echo": False}, {"presence_penalty": 0.0}, {"repetition_penalty": 0.0}, {"logit_bias": {}}],
    ids=str,
)
def test_a_value_without_effect_is_not_reported_as_ignored(neutral: dict[str, Any]) -> None:
    """Many clients fill such fields in by themselves."""
    assert fit_parameters({}, **neutral) == FittedParameters({}, (), {})


def test_a_value_out_of_range_is_clamped_and_reported() -> None:
    """The report has our name, the wanted and the sent value; a whole number stays one."""
    fitted = fit_parameters(temperature=3.5, presence_penalty=-2.5, n=500, top_p=1.0)
    assert fitted.sent == {"temperature": 2, "presence_penalty": -2, "n": 128, "top_p": 1.0}
    assert fitted.adjusted == {"temperature": (3.5, 2), "presence_penalty": (-2.5, -2), "n": (500, 128)}


def test_a_contracts_default_is_clamped_silently() -> None:
    """A default that is dropped is not reported either."""
    fitted = fit_parameters({"temperature": Rule("temperature", 0, 0.1)}, temperature=0.2, defaults=frozenset({"temperature"}))
    assert (fitted.sent, fitted.adjusted) == ({"temperature": 0.1}, {})


def test_a_row_tightens_a_range_but_never_widens_it() -> None:
    """Mistral's temperature ends at 1.5, and no host takes more than its format does."""
    row = ParametersRow(clamp={"temperature": (None, 1.5), "top_p": (-1, 7), "n": (None, 4.0)})
    fitted = fit_parameters(row=row, temperature=2.0, top_p=2.0, n=5)
    assert fitted.sent == {"temperature": 1.5, "top_p": 1, "n": 4}
    assert isinstance(fitted.sent["n"], int)


def test_a_parameter_that_is_no_count_may_be_clamped_to_a_fraction() -> None:
    """Cohere's `top_p` ends at 0.99, and 1 must not become 0, even if it was written as a whole number."""
    row = ParametersRow(clamp={"top_p": (0.01, 0.99), "n": (1.5, 4.5)})
    assert fit_parameters(row=row, top_p=1, n=9).sent == {"top_p": 0.99, "n": 4}
    assert fit_parameters(row=row, top_p=0, n=1).sent == {"top_p": 0.01, "n": 2}


def test_a_row_renames_and_drops_parameters() -> None:
    """As for Mistral: `random_seed`, and no `logit_bias`; the caller's other fields are treated alike."""
    row = ParametersRow(rename={"seed": "random_seed", "safe": "safe_prompt"}, drop=("logit_bias", "metadata"))
    fitted = fit_parameters(row=row, seed=1, logit_bias={"5": 1}, passthrough={"safe": True, "metadata": {}}, takes=None)
    assert fitted.sent == {"random_seed": 1, "safe_prompt": True}
    assert fitted.ignored == ("logit_bias", "metadata")


def test_a_renamed_parameter_is_accepted_even_if_the_format_lacks_it() -> None:
    """This is how a row declares a parameter that only this host knows."""
    row = ParametersRow(rename={"repetition_penalty": "repeat_penalty", "top_k": "top_k"}, clamp={"top_k": (1, 50)})
    fitted = fit_parameters(row=row, repetition_penalty=1.1, top_k=99)
    assert fitted.sent == {"repeat_penalty": 1.1, "top_k": 50}


def test_a_value_that_is_expressed_by_omission_is_omitted() -> None:
    """`best_of: 0` means that it is not set; TGI's `top_p` must be below 1."""
    assert fit_parameters(OPENAI_TEXT, best_of=0) == FittedParameters({}, (), {})
    assert fit_parameters({"top_p": Rule("top_p", omit=(1,))}, top_p=1.0) == FittedParameters({}, (), {})


def test_more_stop_sequences_than_a_host_takes_are_cut_and_reported() -> None:
    stops = ("a", "b", "c", "d", "e")
    assert fit_parameters(stop=stops) == FittedParameters({"stop": stops[:4]}, (), {"stop": (stops, stops[:4])})
    assert fit_parameters(stop=stops[:4]) == FittedParameters({"stop": stops[:4]}, (), {})
    assert fit_parameters(row=ParametersRow(max_stops=5), stop=stops) == FittedParameters({"stop": stops}, (), {})


def test_a_value_without_a_meaning_is_ignored_not_clamped() -> None:
    """A multiplicative penalty has no negative values, and no conversion between the scales is known."""
    table = {"repetition_penalty": Rule("repetition_penalty", positive=True)}
    assert fit_parameters(table, repetition_penalty=-0.5).ignored == ("repetition_penalty",)
    assert fit_parameters(table, repetition_penalty=0.0) == FittedParameters({}, (), {})
    assert fit_parameters(table, repetition_penalty=1.2).sent == {"repetition_penalty": 1.2}


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, {"logprobs": True}), (5, {"logprobs": True, "top_logprobs": 5}), (30, {"logprobs": True, "top_logprobs": 20})],
)
def test_chat_takes_logprobs_as_two_fields(number: int, expected: dict[str, Any]) -> None:
    """They are a boolean and a number, where text has one number."""
    assert fit_parameters(logprobs=number).sent == expected


def test_a_row_can_have_chat_logprobs_as_one_number() -> None:
    """As for Together."""
    assert fit_parameters(row=ParametersRow(rename={"logprobs": "logprobs"}), logprobs=3).sent == {"logprobs": 3}


def test_other_fields_are_sent_where_the_format_takes_them() -> None:
    """All, some or none are sent, but they never change the model or the prompt. Null means "not set"."""
    other: dict[str, Any] = {"tools": [{}], "min_p": None, "model": "x", "stream": True, "messages": [], "verbosity": "low"}
    assert fit_parameters(passthrough=other, takes=None).sent == {"tools": [{}], "verbosity": "low"}
    some = fit_parameters(passthrough=other, takes=frozenset({"tools"}))
    assert (some.sent, some.ignored) == ({"tools": [{}]}, ("verbosity",))


def test_a_parameter_wins_over_another_field_of_its_upstream_name() -> None:
    """On the OpenAI paths a request can have both."""
    assert fit_parameters(max_tokens=3, passthrough={"max_tokens": 9}, takes=None).sent == {"max_tokens": 3}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(-5, 5),
            "n": st.integers(-5, 500),
            "top_k": st.integers(0, 5),
            "logprobs": st.integers(0, 50),
        },
    )
)
def test_every_parameter_is_sent_or_reported(parameters: dict[str, Any]) -> None:
    """No parameter gets lost between those sent and those ignored, and every change is reported."""
    result = fit_parameters(**parameters)
    for name, value in parameters.items():
        assert (name in result.sent) != (name in result.ignored)
        sent = result.sent.get("top_logprobs", 0) if name == "logprobs" else result.sent.get(name, value)
        assert sent == result.adjusted.get(name, (value, value))[1]
