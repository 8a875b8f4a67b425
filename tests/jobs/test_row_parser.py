"""Rows of the input: fields, cells, names, and every error at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.suggestions import find_misspelt
from fanout.jobs.row_parser import MISSPELLABLE, RowItem, parse_row
from fanout.jobs.template import PromptTemplate

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def parse_item(values: Mapping[str, Any], template: str | None = None, **options: Any) -> RowItem:
    parsed = parse_row(values, None if template is None else PromptTemplate(template), **options)
    assert isinstance(parsed, RowItem), parsed
    return parsed


def find_faults(values: Mapping[str, Any], template: str | None = None, **options: Any) -> list[str]:
    parsed = parse_row(values, None if template is None else PromptTemplate(template), **options)
    assert isinstance(parsed, list), parsed
    return [str(fault) for fault in parsed]


def find_fault(values: Mapping[str, Any], template: str | None = None, **options: Any) -> str:
    (only,) = find_faults(values, template, **options)
    return only


def test_a_row_has_a_prompt_and_may_have_parameters_and_other_columns() -> None:
    row = {
        "prompt": "Hi",
        "system": "Be brief",
        "reference": ["Hello", "Hey"],
        "custom_id": 7,
        "temperature": 0.5,
        "stop": "end",
        "parameters": {"max_tokens": 5},
        "topic": "greetings",
        "nothing": None,
    }
    parsed = parse_item(row)
    assert parsed.custom_id == "7"
    assert json.loads(parsed.to_json()) == {
        "prompt": "Hi",
        "system": "Be brief",
        "reference": ["Hello", "Hey"],
        "parameters": {"temperature": 0.5, "stop": ["end"], "max_tokens": 5},
        "values": {"topic": "greetings"},
    }


def test_absent_fields_are_not_stored() -> None:
    assert parse_item({"prompt": "Hi", "temperature": None, "custom_id": None}).to_json() == '{"prompt":"Hi"}'


def test_a_row_may_have_messages_instead_of_a_prompt() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}]
    assert json.loads(parse_item({"messages": messages}).to_json()) == {"messages": messages}


def test_cells_of_a_table_are_read_as_the_type_their_field_needs() -> None:
    """A table has only texts; JSON stands in a cell."""
    row = {
        "messages": '[{"role":"user","content":"Hi"}]',
        "temperature": "0.5",
        "max_tokens": "10",
        "echo": "true",
        "stop": '["a","b"]',
        "logit_bias": '{"50256": -100}',
        "suffix": "[x",
        "reference": "[not JSON",
        "custom_id": "7",
        "note": "1",
    }
    parsed = parse_item(row, typed=False)
    assert parsed.messages == [{"role": "user", "content": "Hi"}]
    assert (parsed.reference, parsed.custom_id, parsed.values) == ("[not JSON", "7", {"note": "1"})
    assert parsed.parameters == {
        "temperature": 0.5,
        "max_tokens": 10,
        "echo": True,
        "stop": ("a", "b"),
        "logit_bias": {"50256": -100},
        "suffix": "[x",
    }
    bracket = {"prompt": "x", "stop": "[", "max_tokens": 5.0}
    assert parse_item(bracket, typed=False).parameters == {"stop": ("[",), "max_tokens": 5}


def test_a_field_that_the_template_uses_is_a_variable_only() -> None:
    """It is a variable even under the name of a known field; a field that is not sent keeps its meaning."""
    parsed = parse_item(
        {"prompt": "x", "user": "Ann", "n": 3, "reference": "r", "topic": "t", "seed": 1},
        "{{prompt}} {{user}} {{n}} {{reference}}",
    )
    assert parsed.prompt == "x Ann 3 r"
    assert (parsed.reference, parsed.parameters) == ("r", {"seed": 1})
    assert parsed.values == {"prompt": "x", "user": "Ann", "n": 3, "topic": "t"}


@pytest.mark.parametrize(
    ("row", "template", "sentence"),
    [
        ({"topic": "x"}, None, "prompt: is required, or `messages`, or a template; this row has `topic`"),
        ({}, None, "prompt: is required, or `messages`, or a template; this row has neither"),
        ({"prompt": ""}, None, "prompt: is empty"),
        ({"prompt": 5}, None, "prompt: 5 is not allowed: must be text"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, None, "prompt: stands beside `messages`"),
        ({"messages": []}, None, "messages: is empty"),
        ({"messages": "x"}, None, "messages: a string is not allowed: input should be a valid list"),
        ({"messages": [{"role": "me", "content": "x"}]}, None, "messages[0].role: `me` is not allowed"),
        ({"messages": [{"role": "user"}]}, None, "messages[0]: a message of role `user` needs `content`"),
        ({"messages": [{"role": "system", "content": "x"}], "system": "y"}, None, "system: is given twice"),
        ({"prompt": "x", "system": ["y"]}, None, 'system: ["y"] is not allowed: must be text'),
        ({"prompt": "x", "custom_id": ""}, None, "custom_id: has 0 characters: 1 to 512 are allowed"),
        ({"prompt": "x", "custom_id": True}, None, "custom_id: true is not allowed: must be text"),
        ({"prompt": "x", "temperature": 2.5}, None, "temperature: 2.5 is not allowed: input should be less than or equal to 2"),
        ({"prompt": "x", "temperature": "0.5"}, None, "temperature: a string is not allowed"),
        ({"prompt": "x", "parameters": {"seed": 1.5}}, None, "parameters.seed: 1.5 is not allowed"),
        ({"prompt": "x", "parameters": {"sead": 1}}, None, "parameters.sead: unknown parameter `sead`; did you mean `seed`?"),
        ({"prompt": "x", "parameters": [1]}, None, "parameters: must be an object of sampling parameters"),
        ({"prompt": "x", "seed": 1, "parameters": {"seed": 2}}, None, "parameters.seed: is given twice"),
        ({"prompt": "x", "n": 2}, None, "n: cannot be set by a row: use the job's `repeats`"),
        ({"prompt": "x", "parameters": {"n": 2}}, None, "parameters.n: cannot be set by a row: use the job's `repeats`"),
        (
            {"prompt": "x", "model": "gpt-6-sol"},
            None,
            "model: cannot be set by a row: a job sends every row to the same models",
        ),
        ({"prompt": "x", "max_completion_tokens": 5}, None, "max_completion_tokens: is called `max_tokens` here"),
        ({"prompt": "x", "tools": []}, None, "tools: is only for lines with `custom_id`, `method`, `url` and `body`"),
        ({"prompt": "x", "tempreature": 1}, None, "tempreature: unknown field `tempreature`; did you mean `temperature`?"),
        ({"a": "x"}, "{{a}} {{b}}", "b: is a variable of the template, and missing or empty in this row"),
        (
            {"Question": "x"},
            "{{question}}",
            "question: is a variable of the template, and missing or empty in this row; did you mean",
        ),
        ({"a": None}, "{{a}}", "a: is a variable of the template, and missing or empty in this row"),
        ({"a": "x", "prompt": "y"}, "{{a}}", "prompt: stands beside the template, which does not use it: it has `a`"),
    ],
)
def test_an_error_in_a_row_names_the_field_and_what_is_allowed(
    row: dict[str, Any], template: str | None, sentence: str
) -> None:
    assert find_fault(row, template).startswith(sentence)


def test_a_cell_with_broken_json_is_reported() -> None:
    assert find_fault({"prompt": "x", "parameters": "{seed: 1}"}, typed=False).startswith("parameters: is not valid JSON: ")


def test_every_error_of_a_row_is_reported_at_once() -> None:
    found = find_faults({"system": 1, "temperature": "hot", "seed": "x", "n": 1, "promt": "hi", "parameters": {"top_p": 2}})
    assert [sentence.split(":")[0] for sentence in found] == [
        *("n", "promt", "prompt", "system", "temperature", "seed", "parameters.top_p")
    ]


@pytest.mark.parametrize(
    "name", ["topic", "step", "users", "preference", "difference", "id", "text", "question", "N", "context", "ref", "", "日"]
)
def test_any_other_name_is_a_column_of_its_own(name: str) -> None:
    assert parse_item({"prompt": "x", name: "y"}).values == {name: "y"}


def test_a_misspelt_name_is_a_variable_where_the_template_uses_it() -> None:
    assert parse_item({"message": "x"}, "{{message}}").prompt == "x"


@given(st.dictionaries(TEXT, st.none() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT)), st.booleans())
def test_parsing_a_row_never_raises(row: dict[str, Any], typed: bool) -> None:
    """It is an item, or it has faults."""
    parsed = parse_row(row, typed=typed)
    assert isinstance(parsed, RowItem) or parsed


@pytest.mark.parametrize("name", ["temperature", "stop", "logit_bias", "messages", "parameters", "prompt", "custom_id", "n"])
@pytest.mark.parametrize("typed", [True, False])
@given(value=st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT))
def test_no_value_of_a_known_field_makes_parsing_raise(name: str, typed: bool, value: Any) -> None:
    parsed = parse_row({"prompt": "x", name: value}, typed=typed)
    assert isinstance(parsed, RowItem) or parsed


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("promt", "prompt"),
        ("Prompt", "prompt"),
        ("prompts", "prompt"),
        ("tempreature", "temperature"),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("topk", "top_k"),
        ("message", "messages"),
        ("customid", "custom_id"),
        ("reference_", "reference"),
        ("frequencyPenality", "frequency_penalty"),
    ],
)
def test_a_misspelt_field_name_is_recognized(name: str, known: str) -> None:
    assert find_misspelt(name, MISSPELLABLE) == known
