"""Pydantic's errors as faults: what is wrong with an input, where, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fanout.core.errors import Fault
from fanout.core.long_lists import MAX_FAULTS
from fanout.core.suggestions import did_you_mean

MAX_NAME_CHARS = 128
"""Of a name that an error shows."""
NAME_STEP = "[key]"
"""Step that pydantic adds to the location of an object's name that is itself at fault."""


def to_faults(error: ValidationError, model: type[BaseModel] = BaseModel) -> list[Fault]:
    """Return the faults that pydantic found, up to `MAX_FAULTS`; the fields of `model` are suggested for an unknown one."""
    faults = [_to_fault(detail, model) for detail in error.errors(include_url=False)[:MAX_FAULTS]]
    # How many more is not known: long lists are validated only until they have enough faults.
    return [*faults, Fault("", "and more", "too_many_faults")] if error.error_count() > MAX_FAULTS else faults


def to_json_path(location: Sequence[str | int]) -> str:
    """Return the path of a location: of `("models", "a/b", "price", 0)` it is `models["a/b"].price[0]`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
            continue
        step = _cut_name(step)
        if step == NAME_STEP:
            continue
        if step.replace("_", "a").replace("-", "a").isalnum() or step.startswith("$"):
            path += f".{step}" if path else step
        else:
            path += f"[{json.dumps(step, ensure_ascii=False)}]"
    return path


def _cut_name(name: str) -> str:
    # A sender of names of megabytes would get each of them back several times.
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…"


def _to_fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    location, kind = detail["loc"], detail["type"]
    if kind == "missing":
        return Fault(to_json_path(location), "is required", "missing_required_parameter")
    if kind == "extra_forbidden":
        name, known = str(location[-1]), _find_fields(model, location[:-1])
        hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        return Fault(to_json_path(location), f"unknown field `{_cut_name(name)}`{hint}", "unknown_parameter")
    if kind == "json_invalid":
        return Fault("", f"the body is not valid JSON: {detail['ctx']['error']}", "invalid_json")
    wrong = detail["msg"].removeprefix("Value error, ")
    # Our own validators write whole sentences, which include the value if it is safe to show.
    if kind == "value_error":
        return Fault(to_json_path(location), wrong)
    if kind in ("too_short", "string_too_short") and not detail["input"]:
        return Fault(to_json_path(location), f"is empty: {wrong[0].lower()}{wrong[1:].partition(' after validation')[0]}")
    # A text in place of another type may be a key or a prompt, which must not be repeated in an error.
    shown = _show_value(detail["input"], text=not kind.endswith("_type"))
    return Fault(to_json_path(location), f"{shown} is not allowed: {wrong[0].lower()}{wrong[1:]}")


def _show_value(value: object, *, text: bool) -> str:
    """Return a value as JSON, or its type alone."""
    if isinstance(value, str) and text:
        return f"`{value}`" if len(value) <= 80 else f"`{value[:77]}…`"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    names: dict[type, str] = {str: "a string", dict: "an object", list: "a list", tuple: "a list"}
    return names.get(type(value), f"a `{type(value).__name__}`")


def _find_fields(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the fields allowed at a location, following it through nested models, dicts and lists."""
    types: list[object] = [model]
    for step in location:
        types = [inner for outer in types for inner in _take_step(outer, step)]
    models = [item for item in types if isinstance(item, type) and issubclass(item, BaseModel)]
    return [field.alias or name for item in models for name, field in item.model_fields.items()]


def _take_step(outer: object, step: str | int) -> list[object]:
    if isinstance(outer, type) and issubclass(outer, BaseModel):
        by_name = {field.alias or name: field for name, field in outer.model_fields.items()}
        if step not in by_name:  # the tag of a union, which pydantic puts into the location
            return [outer] if step == outer.__name__ else []
        return _unwrap(by_name[str(step)].annotation)
    if isinstance(outer, type) or not get_args(outer):
        return []
    return _unwrap(get_args(outer)[-1] if get_origin(outer) is dict else get_args(outer)[0])


def _unwrap(annotation: object) -> list[object]:
    """Return the members of a union, without `Annotated` around them."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _unwrap(member)]
    return [annotation]
