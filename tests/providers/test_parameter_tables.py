"""Families of models: their names, and the parameters that they take."""

from __future__ import annotations

import pytest

from fanout.config.providers_file import ParametersRow
from fanout.core.sampling import Sampling
from fanout.core.schema import FittedParameters, Query
from fanout.providers.parameter_tables import OPENAI_FAMILIES, find_openai_family, find_openai_reasoning
from fanout.providers.parameters import accept, fit


@pytest.mark.parametrize(
    ("model", "when"),
    [
        ("gpt-4o", None),
        ("gpt-4.1-mini", None),
        ("omni-1", None),
        ("o1", "always, with stop"),
        ("o1-mini-2024-09-12", "always, with stop"),
        ("o3", "always"),
        ("o4-mini", "always"),
        ("gpt-5", "always"),
        ("gpt-5-mini", "always"),
        ("gpt-5-chat-latest", "never"),
        ("gpt-5.1", "off"),
        ("gpt-5.1-codex-max", "always"),
        ("gpt-5.2-2026-01-01", "off"),
        ("gpt-5.2-pro", "always"),
        ("gpt-5.3-chat", "always"),
        ("gpt-5.4", "off"),
        ("gpt-5.4-pro", "always"),
        ("gpt-5.5", "on"),
        ("gpt-5.5-pro", "always"),
        ("gpt-5.6", "on"),
        ("gpt-6-luna", "on"),
        ("gpt-6-astra", "always"),
        ("ft:gpt-4o-mini:acme::1", None),
        ("ft:o4-mini:acme::1", "always"),
    ],
)
def test_openais_models_reason_as_their_names_indicate(model: str, when: str | None) -> None:
    """First matching prefix wins."""
    assert find_openai_reasoning(model) == when


@pytest.mark.parametrize(
    ("model", "effort", "family"),
    [
        ("gpt-4o", "high", "plain"),
        ("gpt-5-chat", None, "renamed"),
        ("gpt-5", "none", "reasoning"),
        ("o1", None, "reasoning with stop"),
        ("gpt-5.1", None, "resting"),
        ("gpt-5.1", "none", "resting"),
        ("gpt-5.1", "low", "reasoning"),
        ("gpt-5.6", None, "reasoning"),
        ("gpt-5.6", "none", "resting"),
    ],
)
def test_the_effort_decides_whether_a_model_reasons(model: str, effort: str | None, family: str) -> None:
    """Some models can be switched on, some off, some neither."""
    assert find_openai_family(model, effort) == family


def test_reasoning_models_take_another_length_parameter_and_no_sampling() -> None:
    """Parameters that they refuse are reported, not sent."""

    def fit_family(family: str) -> FittedParameters:
        sampling = Sampling(max_tokens=5, temperature=1.0, logprobs=2, stop=("a",), seed=1, n=2)
        return fit(Query(prompt="p", sampling=sampling), accept(OPENAI_FAMILIES[family], ParametersRow()))

    assert fit_family("reasoning").sent == {"max_completion_tokens": 5, "seed": 1, "n": 2}
    assert fit_family("reasoning").ignored == ("temperature", "stop", "logprobs")
    assert "temperature" in fit_family("resting").sent
