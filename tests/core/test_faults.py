"""Faults: pydantic's errors as sentences with a place, a value and what is allowed."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fanout.core.errors import Fault
from fanout.core.faults import to_faults, to_json_path


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: int = Field(1, ge=1)
    kind: str = "small"

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
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
    some: Annotated[list[int], Field(min_length=1)] = [1]


def find_faults(text: str) -> list[Fault]:
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
        ('{"name":"a","some":[]}', "some", "is empty: list should have at least 1 item", None),
    ],
)
def test_a_fault_names_its_place_and_what_is_allowed_but_shows_nothing_that_may_be_a_secret(
    text: str, path: str, message: str, kind: str | None
) -> None:
    assert find_faults(text) == [Fault(path, message, kind or "invalid_value")]


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ('{"name":"a","nmae":1}', "nmae", "unknown field `nmae`; did you mean `name`?"),
        ('{"name":"a","zzz":1}', "zzz", "unknown field `zzz`; known: name, inner, listed, mapped, $number, some"),
        ('{"name":"a","inner":{"siez":1}}', "inner.siez", "unknown field `siez`; did you mean `size`?"),
        ('{"name":"a","listed":[null,{"kid":1}]}', "listed[1].kid", "unknown field `kid`; did you mean `kind`?"),
        ('{"name":"a","mapped":{"x/y":{"siz":1}}}', 'mapped["x/y"].Inner.siz', "unknown field `siz`; did you mean `size`?"),
    ],
)
def test_an_unknown_field_at_any_depth_is_reported_with_the_fields_near_it(text: str, path: str, hint: str) -> None:
    assert Fault(path, hint, "unknown_parameter") in find_faults(text)


def test_all_faults_are_reported_at_once() -> None:
    assert {fault.path for fault in find_faults('{"inner":{"size":0,"x":1},"listed":[5]}')} == {
        "name",
        "inner.size",
        "inner.x",
        "listed[0]",
    }


def test_a_long_value_is_truncated() -> None:
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
        (("models", "gpt-6-sol", "max_context_length"), "models.gpt-6-sol.max_context_length"),
        (("models", "gpt-3.5"), 'models["gpt-3.5"]'),
        (("sets", 'a"b', 2), 'sets["a\\"b"][2]'),
        (("sets", ""), 'sets[""]'),
        ((0, "model"), "[0].model"),
        (("default_provider", "konko", "[key]"), "default_provider.konko"),
    ],
)
def test_a_json_path_is_unambiguous(location: tuple[str | int, ...], path: str) -> None:
    assert to_json_path(location) == path


def test_a_value_without_a_json_form_is_shown_as_its_type() -> None:
    """A program may pass any object."""

    class Number(BaseModel):
        value: int

    with pytest.raises(ValidationError) as caught:
        Number.model_validate({"value": 1j})
    assert to_faults(caught.value)[0].message == "a `complex` is not allowed: input should be a valid integer"


def test_a_name_of_megabytes_is_not_repeated_whole() -> None:
    (fault,) = [fault for fault in find_faults(f'{{"name":"a","{"z" * 10_000}":1}}') if fault.kind == "unknown_parameter"]
    assert fault.path == f'["{"z" * 127}…"]'
    assert len(fault.message) < 300
