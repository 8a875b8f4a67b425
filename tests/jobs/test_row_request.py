"""A row → what is asked: templates, a row's own parameters, names mistyped, every fault at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import RequestError
from fanout.core.schema import ImagePart, Message, Sampling, TextPart
from fanout.core.suggestions import find_misspelt
from fanout.dispatch.plan import Entry, Request
from fanout.jobs.job import RequestBuilder
from fanout.jobs.row_request import (
    MISTAKABLE,
    PromptTemplate,
    RowItem,
    RowRequestBuilder,
    build_request,
    is_request_line,
    parse_row,
)

ENTRIES = (Entry("a"), Entry("b", overrides={"temperature": 0.1}))
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def item(values: Mapping[str, Any], template: str | None = None, **options: Any) -> RowItem:
    made = parse_row(values, None if template is None else PromptTemplate(template), **options)
    assert isinstance(made, RowItem), made
    return made


def faults(values: Mapping[str, Any], template: str | None = None, **options: Any) -> list[str]:
    made = parse_row(values, None if template is None else PromptTemplate(template), **options)
    assert isinstance(made, list), made
    return [str(fault) for fault in made]


def fault(values: Mapping[str, Any], template: str | None = None, **options: Any) -> str:
    (only,) = faults(values, template, **options)
    return only


def asked(values: Mapping[str, Any], **options: Any) -> Request:
    """What a row asks after it has been through the store as JSON."""
    return build_request(json.loads(item(values).to_json()), entries=ENTRIES, **options)


# Templates


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
def test_a_template_is_filled_from_the_row(template: str, rendered: str) -> None:
    values = {"a": "A", "first name": "Ann", "n": 1.5, "yes": True, "list": ["é", {"k": 1}], "none-such.x": "x", "é": "é"}
    assert PromptTemplate(template).render(values) == rendered


@given(TEXT, TEXT, TEXT)
def test_what_a_row_says_is_never_taken_for_a_template(before: str, value: str, after: str) -> None:
    """And any text can stand around a variable, once its `{{` are doubled."""
    quoted = [text.replace("{", "(").replace("((", "{{{{") for text in (before, after)]
    whole = f"{quoted[0]} {{{{v}}}} {quoted[1]}"
    shown = [text.replace("{{{{", "{{") for text in quoted]
    assert PromptTemplate(whole).render({"v": value}) == f"{shown[0]} {value} {shown[1]}"


def test_a_template_knows_its_variables() -> None:
    assert PromptTemplate("{{b}} {{a}} {{ b }}").variables == ("b", "a")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("Say {{ a", "`{{ a` in line 1, column 5 is not closed by `}}` on its line; a literal `{{` is written `{{{{`"),
        ("{{a}}\n\n {{b\n}}", "`{{b` in line 3, column 2 is not closed"),
        ("{{}}", "`{{}}` in line 1, column 1 names no variable"),
        ("{{  }}", "`{{  }}` in line 1, column 1 names no variable"),
        ("{{a | upper}}", "is no name of a variable: letters, digits, `_`, `-`, `.` and spaces, no filters and no code"),
        ("{{#if a}}", "is no name of a variable"),
        ("{{a{b}}", "is not closed"),
        ("{a}", "has no variable like `{{question}}`: every row would ask the same"),
    ],
)
def test_a_template_that_cannot_be_meant_says_where(template: str, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        PromptTemplate(template)
    assert sentence in str(caught.value)


def test_every_fault_of_a_template_is_named() -> None:
    with pytest.raises(RequestError) as caught:
        PromptTemplate("{{}} {{a|b}} {{c}} {{")
    assert len(caught.value.faults) == 3


# Items


def test_a_row_has_a_prompt_and_may_have_more() -> None:
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
    made = item(row)
    assert made.custom_id == "7"
    assert json.loads(made.to_json()) == {
        "prompt": "Hi",
        "system": "Be brief",
        "reference": ["Hello", "Hey"],
        "parameters": {"temperature": 0.5, "stop": ["end"], "max_tokens": 5},
        "values": {"topic": "greetings"},
    }


def test_what_is_absent_takes_no_room() -> None:
    assert item({"prompt": "Hi", "temperature": None, "custom_id": None}).to_json() == '{"prompt":"Hi"}'


def test_a_row_may_have_messages() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}]
    assert json.loads(item({"messages": messages}).to_json()) == {"messages": messages}


def test_cells_are_read_for_what_they_must_be() -> None:
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
    made = item(row, typed=False)
    assert made.messages == [{"role": "user", "content": "Hi"}]
    assert (made.reference, made.custom_id, made.values) == ("[not JSON", "7", {"note": "1"})
    assert made.parameters == {
        "temperature": 0.5,
        "max_tokens": 10,
        "echo": True,
        "stop": ("a", "b"),
        "logit_bias": {"50256": -100},
        "suffix": "[x",
    }
    assert item({"prompt": "x", "stop": "[", "max_tokens": 5.0}, typed=False).parameters == {"stop": ("[",), "max_tokens": 5}


def test_with_a_template_the_prompt_is_made_of_the_row() -> None:
    """What it uses is a variable, also under a name that would mean something; only what is not sent stays what it is."""
    made = item(
        {"prompt": "x", "user": "Ann", "n": 3, "reference": "r", "topic": "t", "seed": 1},
        "{{prompt}} {{user}} {{n}} {{reference}}",
    )
    assert made.prompt == "x Ann 3 r"
    assert (made.reference, made.parameters) == ("r", {"seed": 1})
    assert made.values == {"prompt": "x", "user": "Ann", "n": 3, "topic": "t"}


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
        ({"messages": [{"role": "system", "content": "x"}], "system": "y"}, None, "system: stands twice"),
        ({"prompt": "x", "system": ["y"]}, None, 'system: ["y"] is not allowed: must be text'),
        ({"prompt": "x", "custom_id": ""}, None, "custom_id: has 0 characters: 1 to 512 are allowed"),
        ({"prompt": "x", "custom_id": True}, None, "custom_id: true is not allowed: must be text"),
        ({"prompt": "x", "temperature": 2.5}, None, "temperature: 2.5 is not allowed: input should be less than or equal to 2"),
        ({"prompt": "x", "temperature": "0.5"}, None, "temperature: a string is not allowed"),
        ({"prompt": "x", "parameters": {"seed": 1.5}}, None, "parameters.seed: 1.5 is not allowed"),
        ({"prompt": "x", "parameters": {"sead": 1}}, None, "parameters.sead: unknown parameter `sead`; did you mean `seed`?"),
        ({"prompt": "x", "parameters": [1]}, None, "parameters: must be an object of sampling parameters"),
        ({"prompt": "x", "seed": 1, "parameters": {"seed": 2}}, None, "parameters.seed: stands twice"),
        ({"prompt": "x", "n": 2}, None, "n: is not a row's: use the job's `repeats`"),
        ({"prompt": "x", "parameters": {"n": 2}}, None, "parameters.n: is not a row's: use the job's `repeats`"),
        ({"prompt": "x", "model": "gpt-4"}, None, "model: is not a row's: a job asks the same models for every row"),
        ({"prompt": "x", "max_completion_tokens": 5}, None, "max_completion_tokens: is called `max_tokens` here"),
        ({"prompt": "x", "tools": []}, None, "tools: is only for lines with `custom_id`, `method`, `url` and `body`"),
        ({"prompt": "x", "tempreature": 1}, None, "tempreature: unknown field `tempreature`; did you mean `temperature`?"),
        ({"a": "x"}, "{{a}} {{b}}", "b: is a variable of the template, and absent or empty in this row"),
        (
            {"Question": "x"},
            "{{question}}",
            "question: is a variable of the template, and absent or empty in this row; did you mean",
        ),
        ({"a": None}, "{{a}}", "a: is a variable of the template, and absent or empty in this row"),
        ({"a": "x", "prompt": "y"}, "{{a}}", "prompt: stands beside the template, which does not use it: it has `a`"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(row: dict[str, Any], template: str | None, sentence: str) -> None:
    assert fault(row, template).startswith(sentence)


def test_a_broken_cell_is_named() -> None:
    assert fault({"prompt": "x", "parameters": "{seed: 1}"}, typed=False).startswith("parameters: is not valid JSON: ")


def test_every_fault_of_a_row_is_named_at_once() -> None:
    found = faults({"system": 1, "temperature": "hot", "seed": "x", "n": 1, "promt": "hi", "parameters": {"top_p": 2}})
    assert [sentence.split(":")[0] for sentence in found] == [
        *("n", "promt", "prompt", "system", "temperature", "seed", "parameters.top_p"),
    ]


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
def test_a_name_that_was_mistyped_is_not_taken_for_a_variable(name: str, known: str) -> None:
    assert find_misspelt(name, MISTAKABLE) == known


@pytest.mark.parametrize(
    "name", ["topic", "step", "users", "preference", "difference", "id", "text", "question", "N", "context", "ref", "", "日"]
)
def test_other_names_are_variables(name: str) -> None:
    assert item({"prompt": "x", name: "y"}).values == {name: "y"}


def test_a_mistyped_name_is_a_variable_where_the_template_uses_it() -> None:
    assert item({"message": "x"}, "{{message}}").prompt == "x"


@given(st.dictionaries(TEXT, st.none() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT)), st.booleans())
def test_no_row_raises(row: dict[str, Any], typed: bool) -> None:
    """It is an item, or it has faults."""
    made = parse_row(row, typed=typed)
    assert isinstance(made, RowItem) or made


@pytest.mark.parametrize("name", ["temperature", "stop", "logit_bias", "messages", "parameters", "prompt", "custom_id", "n"])
@pytest.mark.parametrize("typed", [True, False])
@given(value=st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT))
def test_no_value_of_a_known_name_raises(name: str, typed: bool, value: Any) -> None:
    made = parse_row({"prompt": "x", name: value}, typed=typed)
    assert isinstance(made, RowItem) or made


# Requests


def test_a_row_asks_as_it_says_and_else_as_its_job_does() -> None:
    request = asked(
        {"prompt": "Hi", "system": "Own", "temperature": 0.5, "stop": ["x"]},
        system="Job",
        sampling={"temperature": 1.0, "max_tokens": 5},
        strict=True,
        account_id="me",
    )
    assert request == Request(
        entries=ENTRIES,
        prompts=("Hi",),
        system="Own",
        sampling=Sampling(temperature=0.5, max_tokens=5, stop=("x",)),
        strict=True,
        account_id="me",
    )


def test_a_jobs_system_message_and_repeats_hold_for_every_row() -> None:
    request = asked({"prompt": "Hi"}, system="Job", repeats=3)
    assert (request.system, request.sampling, request.native_n) == ("Job", Sampling(n=3), False)
    assert asked({"prompt": "Hi"}).sampling == Sampling()


def test_messages_become_ours() -> None:
    messages = [{"role": "user", "name": "Al", "content": [{"type": "text", "text": "What?"}, IMAGE]}]
    request = asked({"messages": messages}, system="Job")
    parts = (TextPart("What?"), ImagePart("https://example.org/a.png"))
    assert (request.prompts, request.messages) == ((), (Message("user", parts, {"name": "Al"}),))
    assert request.system == "Job"


def test_a_system_message_of_the_row_stands_instead_of_the_jobs() -> None:
    request = asked({"messages": [{"role": "system", "content": "Own"}, {"role": "user", "content": "Hi"}]}, system="Job")
    assert request.system is None


def test_a_job_asks_of_its_rows() -> None:
    """As the worker drives it: from a row to JSON, and from that to a request."""
    builder: RequestBuilder = RowRequestBuilder(ENTRIES, template="Say {{word}}", sampling={"seed": 1}, repeats=2, typed=False)
    custom_id, body = builder.parse_row({"word": "hi", "custom_id": "1", "temperature": "0.5"})
    assert custom_id == "1"
    request = builder.build_request(body)
    assert request.prompts == ("Say hi",)
    assert request.sampling == Sampling(seed=1, temperature=0.5, n=2)
    with pytest.raises(RequestError, match="word: is a variable"):
        builder.parse_row({})


def test_a_line_of_openais_batches_is_known_as_such() -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    assert is_request_line(line)
    assert not is_request_line({"custom_id": "1", "prompt": "x", "url": "y"})
