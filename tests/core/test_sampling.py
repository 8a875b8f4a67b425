"""What each sampling parameter may be, whoever asks: programs, a job's rows, the dialects."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.core.faults import Fault
from fanout.core.sampling import INT64, SAMPLING_NAMES, Sampling
from fanout.core.sampling_fields import AllSampling, validate_sampling
from fanout.requests.bodies import SamplingBody
from fanout.requests.openai.chat import ChatSampling
from fanout.requests.openai.text import TextSampling


def find_faults(given: dict[str, Any], **options: Any) -> list[str]:
    found: list[Fault] = []
    assert validate_sampling(given, "here.", found, **options) == {}
    return [str(fault) for fault in found]


def test_every_parameter_has_its_range() -> None:
    assert tuple(AllSampling.model_fields) == SAMPLING_NAMES


def test_parameters_are_converted_to_the_types_of_sampling() -> None:
    """`None` was said, too: it takes another's word back."""
    found: list[Fault] = []
    made = validate_sampling({"stop": "a", "temperature": 1, "seed": None, "logit_bias": {"5": -100.0}}, "", found)
    assert made == {"stop": ("a",), "temperature": 1.0, "seed": None, "logit_bias": {"5": -100}}
    assert found == []
    assert Sampling(**made).as_dict().keys() == {"stop", "temperature", "logit_bias"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_tokens", -1), ("temperature", 2.1), ("temperature", float("nan")), ("top_p", 1.1), ("top_k", -2), ("n", 0)),
        *(("n", 129), ("best_of", 21), ("seed", INT64), ("stop", []), ("stop", ["a"] * 5), ("presence_penalty", 3)),
        *(
            ("frequency_penalty", -3),
            ("repetition_penalty", 3),
            ("logit_bias", {"1": 101}),
            ("logprobs", 21),
            ("echo", "perhaps"),
        ),
        *(("suffix", 5), ("user", "x" * 257)),
    ],
)
def test_a_value_beyond_its_range_is_reported_with_its_name(name: str, value: Any) -> None:
    (sentence,) = find_faults({name: value})
    assert sentence.startswith(f"here.{name}")


def test_a_text_is_accepted_as_a_number_unless_strict() -> None:
    assert validate_sampling({"seed": "5"}, "", []) == {"seed": 5}
    assert find_faults({"seed": "5"}, strict=True) == ["here.seed: a string is not allowed: input should be a valid integer"]


@pytest.mark.parametrize("dialect", [SamplingBody, ChatSampling, TextSampling])
def test_no_dialect_accepts_a_value_beyond_the_widest_range(dialect: type[Any]) -> None:
    """Theirs are narrower or the same."""
    for name in SAMPLING_NAMES:
        limits = dialect.model_fields[name].metadata if name in dialect.model_fields else []
        for end in [getattr(limit, side) for limit in limits for side in ("ge", "le") if hasattr(limit, side)]:
            found: list[Fault] = []
            validate_sampling({name: end}, "", found)
            assert found == []
