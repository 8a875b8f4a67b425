"""Faults in our words, and names that look alike."""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fanout.core.errors import ConfigError, ProviderError, RequestError
from fanout.core.faults import Fault, to_faults, to_json_path
from fanout.core.schema import Failure
from fanout.core.suggestions import did_you_mean, find_near


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: int = Field(1, ge=1)
    kind: str = "small"

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in ("small", "large"):
            raise ValueError("is `small` or `large`")
        return kind


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    inner: Inner | None = None
    listed: list[Annotated[Inner, Field()] | None] = []
    mapped: dict[str, Inner | str] = {}
    number: float | None = Field(None, alias="$number")


def faults(text: str) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(text)
    return to_faults(caught.value, Outer)


@pytest.mark.parametrize(
    ("text", "path", "message", "kind"),
    [
        ("{}", "name", "is required", "missing_required_parameter"),
        ('{"name":', "", "the body is not valid JSON: EOF while parsing a value at line 1 column 8", "invalid_json"),
        ('{"name":"a","inner":{"size":0}}', "inner.size", "0 is not allowed: input should be greater than or equal to 1", None),
        ('{"name":"a","inner":{"kind":"sk-huge"}}', "inner.kind", "is `small` or `large`", None),
        ('{"name":"a","$number":"7"}', "$number", "a string is not allowed: input should be a valid number", None),
        ('{"name":true}', "name", "true is not allowed: input should be a valid string", None),
        ('{"name":null}', "name", "null is not allowed: input should be a valid string", None),
        ('{"name":["sk-1"]}', "name", "a list is not allowed: input should be a valid string", None),
        ('{"name":{"a":"sk-1"}}', "name", "an object is not allowed: input should be a valid string", None),
        ("[]", "", "a list is not allowed: input should be an object", None),
    ],
)
def test_a_fault_says_where_and_what_is_allowed_and_shows_nothing_that_may_be_a_secret(
    text: str, path: str, message: str, kind: str | None
) -> None:
    assert faults(text) == [Fault(path, message, kind or "invalid_value")]


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ('{"name":"a","nmae":1}', "nmae", "unknown field `nmae`; did you mean `name`?"),
        ('{"name":"a","zzz":1}', "zzz", "unknown field `zzz`; known: name, inner, listed, mapped, $number"),
        ('{"name":"a","inner":{"siez":1}}', "inner.siez", "unknown field `siez`; did you mean `size`?"),
        ('{"name":"a","listed":[null,{"kid":1}]}', "listed[1].kid", "unknown field `kid`; did you mean `kind`?"),
        ('{"name":"a","mapped":{"x/y":{"siz":1}}}', 'mapped["x/y"].Inner.siz', "unknown field `siz`; did you mean `size`?"),
    ],
)
def test_an_unknown_field_names_those_near_it_wherever_it_stands(text: str, path: str, hint: str) -> None:
    assert Fault(path, hint, "unknown_parameter") in faults(text)


def test_all_faults_come_at_once() -> None:
    assert {fault.path for fault in faults('{"inner":{"size":0,"x":1},"listed":[5]}')} == {
        "name",
        "inner.size",
        "inner.x",
        "listed[0]",
    }


def test_a_long_value_is_cut() -> None:
    class Short(BaseModel):
        name: str = Field(max_length=5)

    with pytest.raises(ValidationError) as caught:
        Short(name="x" * 10_000)
    assert to_faults(caught.value)[0].message == f"`{'x' * 77}…` is not allowed: string should have at most 5 characters"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ((), ""),
        (("models", "a/b", "price", 0), 'models["a/b"].price[0]'),
        (("models", "gpt-4", "max_context_length"), "models.gpt-4.max_context_length"),
        (("models", "gpt-3.5"), 'models["gpt-3.5"]'),
        (("sets", 'a"b', 2), 'sets["a\\"b"][2]'),
        (("sets", ""), 'sets[""]'),
        ((0, "model"), "[0].model"),
        (("default_provider", "konko", "[key]"), "default_provider.konko"),
    ],
)
def test_a_json_path_can_be_read_back(location: tuple[str | int, ...], path: str) -> None:
    assert to_json_path(location) == path


def test_errors_say_every_fault() -> None:
    faults = [Fault("a", "is wrong"), Fault("", "is empty", source="/own.json")]
    assert str(ConfigError("/file.json", faults)) == "/file.json: a: is wrong\n/own.json: is empty"
    assert str(RequestError(faults)) == "a: is wrong; is empty"
    assert str(ProviderError(Failure("server", "overloaded"))) == "overloaded"


@pytest.mark.parametrize(
    ("name", "best"),
    [("gtp-4", "gpt-4"), ("GPT-4", "gpt-4"), ("gpt-4.0-mini", "gpt-4o-mini"), ("lama-2-7b", "llama-2-7b"), ("claude", None)],
)
def test_the_name_that_was_meant_comes_first(name: str, best: str | None) -> None:
    known = ["gpt-4o", "gpt-4o-mini", "gpt-4", "llama-2-7b", "llama-2-70b", "mistral-7b"]
    assert next(iter(find_near(name, known)), None) == best


def test_near_names_are_told_once_each_and_the_best_three_at_most() -> None:
    assert find_near("model-a", ["model-a", "model-b", "model-a", "model-c", "model-d"]) == ["model-a", "model-b", "model-c"]
    assert did_you_mean("tempratur", ["temperature", "top_p"]) == "; did you mean `temperature`?"
    assert did_you_mean("modl", ["model", "mode"]) == "; did you mean `model` or `mode`?"
    assert did_you_mean("xyz", ["temperature"]) == ""


@given(st.text(max_size=200), st.lists(st.text(max_size=80), max_size=20))
def test_any_text_has_near_names_that_are_known_ones(name: str, known: list[str]) -> None:
    found = find_near(name, known)
    assert set(found) <= set(known)
    assert len(found) == len(set(found)) <= 3
    assert name not in known or name in found or len(found) == 3


@pytest.mark.parametrize("name", ["model-17-cht", "x" * 300, "model-" * 100_000], ids=["short", "long", "huge"])
def test_near_names_are_found_in_less_than_a_millisecond(name: str) -> None:
    """Of processor time: they are looked for on the event loop. Typically 0.2 ms (2026-11, over 300 names)."""
    known = [f"model-{number}-{kind}-{number % 7}b" for number in range(100) for kind in ("chat", "instruct", "turbo")]
    find_near("warm", known)

    def spent_s(number: int) -> float:
        start = time.thread_time()
        find_near(f"{number}{name}", known)
        return time.thread_time() - start

    assert median(spent_s(number) for number in range(30)) < 0.001


def test_what_json_does_not_have_is_named_by_its_type() -> None:
    """In a program the input is anything."""

    class Number(BaseModel):
        value: int

    with pytest.raises(ValidationError) as caught:
        Number.model_validate({"value": 1j})
    assert to_faults(caught.value)[0].message == "a `complex` is not allowed: input should be a valid integer"
