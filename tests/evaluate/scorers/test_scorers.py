"""Every scorer on answers as models really write them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from fanout.evaluate import limits
from fanout.evaluate.scorers import ANY_SCORER, ScorerInput
from tests.support.timing import timed


def score(declared: dict[str, Any], text: str, reference: str | None = None, **more: Any) -> float | None:
    return ANY_SCORER.validate_python(declared).score(ScorerInput(text, reference, **more)).value


def explain(declared: dict[str, Any], text: str, reference: str | None = None, **more: Any) -> str | None:
    return ANY_SCORER.validate_python(declared).score(ScorerInput(text, reference, **more)).explanation


@pytest.mark.parametrize(
    ("declared", "text", "reference", "value"),
    [
        ({"type": "exact"}, " Paris\n", "Paris", 1),
        ({"type": "exact"}, "paris", "Paris", 0),
        ({"type": "exact", "ignore_case": True}, "STRASSE", "straße", 1),
        ({"type": "exact", "strip": False}, "Paris ", "Paris", 0),
        ({"type": "contains"}, "It is Paris.", "Paris", 1),
        ({"type": "contains", "text": "sorry"}, "I am sorry", None, 1),
        ({"type": "contains"}, "It is Paris.", "", None),
        ({"type": "regex", "pattern": r"^\d{4}$"}, "1984", None, 1),
        ({"type": "regex", "pattern": r"\d", "full": True}, "1984", None, 0),
        ({"type": "numeric"}, "So the total is $1,234.50.", "1234.5", 1),
        ({"type": "numeric"}, "3 apples and 4 pears make 7", "7", 1),
        ({"type": "numeric", "take": "first"}, "7, since 3 + 4", "7", 1),
        ({"type": "numeric", "take": "only"}, "3 + 4 = 7", "7", 0),
        ({"type": "numeric", "absolute": 0.1}, "3.2", "3.14", 1),
        ({"type": "numeric", "relative": 0.01}, "3.2", "3.14", 0),
        ({"type": "numeric"}, "-5 degrees", "-5", 1),
        ({"type": "numeric"}, "GPT-4 says 12", "12", 1),
        ({"type": "numeric"}, "none", "12", 0),
        ({"type": "numeric"}, "12", "twelve", None),
        ({"type": "choice"}, "The answer is (B).", "B", 1),
        ({"type": "choice"}, "B. Because A is wrong", "B", 1),
        ({"type": "choice"}, "**C**", "(c)", 1),
        ({"type": "choice"}, "Either A or B", "A", 0),
        ({"type": "choice"}, "First I thought the answer is A. No: answer: D", "D", 1),
        ({"type": "choice"}, "I'd say it depends", "D", 0),
        ({"type": "choice", "letters": "ABCDE"}, "E", "E", 1),
        ({"type": "json_equal"}, '{"b": 1.0, "a": [true]}', '{"a": [true], "b": 1}', 1),
        ({"type": "json_equal"}, '{"a": 1}', '{"a": true}', 0),
        ({"type": "json_equal"}, 'Here:\n```json\n{"a": 1}\n```', '{"a": 1}', 1),
        ({"type": "json_equal", "fenced": False}, '```\n{"a": 1}\n```', '{"a": 1}', 0),
        ({"type": "json_equal"}, "NaN", "1", 0),
        ({"type": "json_equal"}, "1", "oops", None),
        ({"type": "rouge_l"}, "the cat sat", "the cat sat", 1),
        ({"type": "bleu"}, "the cat sat on the mat", "the cat sat on the mat", 1),
        ({"type": "exact"}, "x", None, None),
    ],
)
def test_a_text_is_scored_against_its_reference(
    declared: dict[str, Any], text: str, reference: str | None, value: float | None
) -> None:
    found = score(declared, text, reference)

    assert found == (pytest.approx(value) if value is not None else None)


def test_the_overlap_of_partly_equal_texts_lies_between_0_and_1() -> None:
    assert score({"type": "rouge_l"}, "the cat lay down", "the cat sat down") == pytest.approx(0.75)
    assert 0 < (score({"type": "bleu"}, "the cat lay on the mat", "the cat sat on the mat") or 0) < 1
    assert explain({"type": "bleu"}, "x" * 20_001, "y") == "longer than 20,000 characters"


def test_a_schema_names_the_first_fault_and_never_fetches() -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer", "minimum": 0}}}
    declared = {"type": "json_schema", "schema": schema}

    assert score(declared, '{"name": "x", "age": 3}') == 1
    assert explain(declared, '{"name": "x", "age": -3}') == "$.age: -3 is less than the minimum of 0"
    assert (explain(declared, "no") or "").startswith("not JSON: ")
    assert "refers to" in (explain({"type": "json_schema", "schema": {"$ref": "http://127.0.0.1:1/x"}}, "1") or "")
    assert (explain({"type": "json_equal"}, "[" * 100_000, "1") or "").startswith("not JSON: nested too deeply")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"pattern": r"^(a|aa)+$"}},
        {"patternProperties": {r"^(a|aa)+$": {}}},
        {"patternProperties": {r"^(a|aa)+$": {}}, "additionalProperties": False},
        {"properties": {"x": {}}, "propertyNames": {"pattern": r"^(a|aa)+$"}},
    ],
)
def test_a_schema_whose_patterns_take_too_long_is_no_score(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REGEX_TIMEOUT_S", 0.05)
    name = "a" * 100 + "!"
    assert "took longer" in (explain({"type": "json_schema", "schema": schema}, f'{{"{name}": "{name}"}}') or "")


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"pattern": "^a"}, '"abc"', 1),
        ({"pattern": "^a"}, '"bc"', 0),
        ({"patternProperties": {"^a": {"type": "string"}}}, '{"ab": 1}', 0),
        ({"patternProperties": {"^a": {"type": "string"}}}, '{"b": 1}', 1),
        ({"properties": {"x": {}}, "patternProperties": {"^a": {}}, "additionalProperties": False}, '{"x": 1, "ab": 1}', 1),
        ({"properties": {"x": {}}, "patternProperties": {"^a": {}}, "additionalProperties": False}, '{"x": 1, "b": 1}', 0),
        ({"properties": {"x": {}}, "additionalProperties": {"type": "string"}}, '{"x": 1, "b": 1}', 0),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": {"pattern": "^a"}}, '["a", "b"]', 0),
        ({"$ref": "#"}, "1", None),
    ],
)
def test_patterns_of_a_schema_are_checked_as_json_schema_says(schema: dict[str, Any], text: str, value: float | None) -> None:
    assert score({"type": "json_schema", "schema": schema}, text) == value


def test_a_code_block_that_does_not_end_is_looked_for_in_short_time() -> None:
    began = time.thread_time()
    assert score({"type": "json_schema", "schema": {}}, "```json" + "\n" * 100_000) == 0
    assert time.thread_time() - began < 1, "the square of the number of lines would take minutes"


def test_operational_scores_without_measurements_are_unknown() -> None:
    assert score({"type": "length"}, "three words here") == 3
    assert score({"type": "length", "unit": "tokens"}, "x") is None
    assert score({"type": "length", "unit": "tokens"}, "x", output_tokens=4) == 4
    assert score({"type": "latency"}, "x", call_s=1.5) == 1.5
    assert score({"type": "latency", "until": "first_token"}, "x") is None
    assert score({"type": "cost"}, "x", cost_usd=0.0) == 0.0
    assert explain({"type": "cost"}, "x") == "no known price"


@timed
def test_a_pattern_that_takes_too_long_is_aborted() -> None:
    begin = time.monotonic()

    assert score({"type": "regex", "pattern": "^(a|aa)+$"}, "a" * 40 + "!") is None
    assert time.monotonic() - begin < 5


def test_another_column_may_hold_the_expected_answer() -> None:
    assert score({"type": "exact", "against": "capital"}, "Paris", columns={"capital": "Paris"}) == 1
    assert explain({"type": "exact", "against": "capital"}, "Paris", "Paris") == "the row has no `capital`"


def count_vowels(given: ScorerInput) -> float:
    return sum(letter in "aeiou" for letter in given.text)


def fail(given: ScorerInput) -> float:
    raise KeyError("gone")


def test_a_function_scores_and_its_error_is_no_score() -> None:
    assert score({"type": "python", "function": f"{__name__}.count_vowels"}, "audio") == 4
    assert explain({"type": "python", "function": f"{__name__}.fail"}, "x") == "KeyError: 'gone'"


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"type": "exact", "ignorecase": True}, "ignorecase"),
        ({"type": "nope"}, "nope"),
        ({"type": "regex", "pattern": "("}, "is not a regular expression"),
        (
            {"type": "json_schema", "schema": {"patternProperties": {"a": {}}, "unevaluatedProperties": False}},
            "are not allowed together",
        ),
        ({"type": "json_schema", "schema": {"type": "nope"}}, "is not a JSON Schema"),
        ({"type": "python", "function": "tests.nope.f"}, "cannot be loaded"),
        ({"type": "numeric", "absolute": -1}, "greater than or equal to 0"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(declared: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ANY_SCORER.validate_python(declared)


def test_the_version_changes_with_options_and_not_with_the_name() -> None:
    plain, named, other = (
        ANY_SCORER.validate_python(declared).version
        for declared in ({"type": "exact"}, {"type": "exact", "name": "x"}, {"type": "exact", "ignore_case": True})
    )

    assert plain == named != other
    assert plain.startswith("exact/1/")
