"""Prompt templates: variables, literal braces, and errors with their place."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import RequestError
from fanout.jobs.template import PromptTemplate
from tests.support.timing import timed

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{a}}", "A"),
        ("{{ a }} and {{first name}}, {{a}}", "A and Ann, A"),
        ("{{n}} {{yes}} {{list}} {{none-such.x}}", '1.5 true ["é",{"k":1}] x'),
        ('{"text": "{{a}}", "more": {"b": 1}}', '{"text": "A", "more": {"b": 1}}'),
        ("{{{{a}} is {{a}}", "{{a}} is A"),
        ("{{{a}}}", "{A}"),
        ("{{{{{{a}}}}", "{{A}}"),
        ("{ {{a}} }", "{ A }"),
        ("{{é}}", "é"),
    ],
)
def test_a_template_is_filled_with_the_values_of_the_row(template: str, rendered: str) -> None:
    values = {"a": "A", "first name": "Ann", "n": 1.5, "yes": True, "list": ["é", {"k": 1}], "none-such.x": "x", "é": "é"}
    assert PromptTemplate(template).render(values) == rendered


@given(TEXT, TEXT, TEXT)
def test_braces_in_a_value_are_never_taken_for_a_variable(before: str, value: str, after: str) -> None:
    """And any text can stand around a variable, once its `{{` are doubled."""
    quoted = [text.replace("{", "(").replace("((", "{{{{") for text in (before, after)]
    whole = f"{quoted[0]} {{{{v}}}} {quoted[1]}"
    shown = [text.replace("{{{{", "{{") for text in quoted]
    assert PromptTemplate(whole).render({"v": value}) == f"{shown[0]} {value} {shown[1]}"


def test_a_template_lists_each_of_its_variables_once() -> None:
    assert PromptTemplate("{{b}} {{a}} {{ b }}").variables == ("b", "a")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("Say {{ a", "`{{ a` in line 1, column 5 is not closed by `}}` on its line; a literal `{{` is written `{{{{`"),
        ("{{a}}\n\n {{b\n}}", "`{{b` in line 3, column 2 is not closed"),
        ("{{}}", "`{{}}` in line 1, column 1 has no variable name"),
        ("{{  }}", "`{{  }}` in line 1, column 1 has no variable name"),
        (
            "{{a | upper}}",
            "is not a variable name: letters, digits, `_`, `-`, `.` and spaces are allowed, filters and code are not",
        ),
        ("{{#if a}}", "is not a variable name"),
        ("{{a{b}}", "is not closed"),
        ("{a}", "has no variable like `{{question}}`: every row would ask the same"),
    ],
)
def test_an_error_in_a_template_names_line_and_column(template: str, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        PromptTemplate(template)
    assert sentence in str(caught.value)


def test_every_error_of_a_template_is_reported_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        PromptTemplate("{{}} {{a|b}} {{c}} {{")
    assert len(caught.value.faults) == 3


def test_a_prompt_that_a_template_would_make_too_long_is_refused_before_it_is_built() -> None:
    template = PromptTemplate("{{text}}" * 20_000)
    assert len(template.render({"text": "x" * 400})) == 8_000_000
    with pytest.raises(RequestError, match="makes a prompt of 20,000,160,000 characters: at most 8,388,608 are allowed"):
        template.render({"text": "x" * 1_000_000})


@timed
def test_a_template_of_many_variables_and_many_errors_is_checked_in_one_pass() -> None:
    began = time.process_time()
    assert len(PromptTemplate("".join(f"{{{{v{number}}}}}" for number in range(80_000))).variables) == 80_000
    with pytest.raises(RequestError) as caught:
        PromptTemplate("{{ " * 300_000)
    assert len(caught.value.faults) == 100
    assert time.process_time() - began < 5


def test_a_template_has_a_length() -> None:
    with pytest.raises(RequestError, match="has 1,048,583 characters: at most 1,048,576 are allowed"):
        PromptTemplate("{{x}}" + "y" * (2**20 + 2))
