"""The ranges of sampling parameters in programs, rows of jobs and the dialects, all from one declaration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import Fault
from fanout.core.sampling import DESCRIPTIONS, INT64, MEASURED, SAMPLING_NAMES, Sampling
from fanout.core.sampling_fields import AllSampling, SamplingFields, validate_sampling
from fanout.requests.bodies import SamplingBody
from fanout.requests.openai.chat import ChatSampling
from fanout.requests.openai.text import TextSampling

ROOT = Path(__file__).parents[2]


def find_faults(given: dict[str, Any], **options: Any) -> list[str]:
    found: list[Fault] = []
    assert validate_sampling(given, "here.", found, **options) == {}
    return [str(fault) for fault in found]


def test_every_parameter_has_its_range() -> None:
    assert tuple(AllSampling.model_fields) == SAMPLING_NAMES


def test_parameters_are_converted_to_the_types_of_sampling() -> None:
    """A written `None` is kept: it overrides an outer value."""
    found: list[Fault] = []
    made = validate_sampling({"stop": "a", "temperature": 1, "seed": None, "logit_bias": {"5": -100.0}}, "", found)
    assert made == {"stop": ("a",), "temperature": 1.0, "seed": None, "logit_bias": {"5": -100}}
    assert found == []
    assert Sampling(**made).as_dict().keys() == {"stop", "temperature", "logit_bias"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_tokens", -1), ("temperature", 2.1), ("temperature", float("nan")), ("top_p", 1.1), ("top_k", -2), ("n", 0)),
        *(
            ("n", 129),
            ("best_of", 21),
            ("seed", INT64),
            ("max_tokens", INT64),
            ("top_k", 2**70),
            ("temperature", 10**400),
            ("stop", ["a"] * 65),
            ("presence_penalty", 3),
        ),
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
    """A dialect's range is the widest one or narrower."""
    for name in SAMPLING_NAMES:
        limits = dialect.model_fields[name].metadata if name in dialect.model_fields else []
        for end in [getattr(limit, side) for limit in limits for side in ("ge", "le") if hasattr(limit, side)]:
            found: list[Fault] = []
            validate_sampling({name: end}, "", found)
            assert found == []


class _Body(
    SamplingFields,
    takes=("length", "temperature", "seed"),
    spellings={"length": "max_tokens"},
    ranges={"temperature": (0, 1), "user": (None, None)},
):
    prompt: str = ""


def test_a_body_takes_fields_from_the_declaration_in_its_own_ranges() -> None:
    properties = _Body.model_json_schema()["properties"]

    assert list(properties) == ["length", "temperature", "seed", "user", "prompt"]
    assert properties["temperature"]["description"] == DESCRIPTIONS["temperature"]
    assert properties["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 1}
    assert properties["length"]["description"] == "Another name of `max_tokens`."
    assert _Body(user="x" * 300).to_parameters() == {"user": "x" * 300}


def test_a_body_returns_what_was_written_by_the_parameters_names() -> None:
    assert _Body.model_validate({"length": 3, "seed": None}).to_parameters() == {"max_tokens": 3, "seed": None}
    assert _Body(prompt="x").to_parameters() == {}


@pytest.mark.parametrize("name", MEASURED)
def test_the_document_of_the_api_has_every_parameter_in_its_range(name: str) -> None:
    field = SamplingBody.model_json_schema()["properties"][name]["anyOf"][0]
    low, high = field.get("minimum"), field.get("maximum")
    allowed = f"integer ≥ {low}" if high is None else f"{low:g} to {high:g}"

    assert f"\n| `{name}` | {allowed}" in (ROOT / "docs" / "api.md").read_text()
