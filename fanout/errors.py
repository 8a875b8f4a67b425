"""Every exception that leaves a module of ours on purpose.

FanoutError
├── ConfigError        the configuration cannot be used: every fault in it, at once
├── RequestError       a request cannot be carried out: every wrong field, at once
├── ServerError        a Fanout server (`fanout ask --server`) answered with an error
└── ProviderError      an upstream call failed: carries the `Failure`; never passes `dispatch`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fanout.schema import Failure


class FanoutError(Exception):
    """Base of all."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: where, what, and what is allowed."""

    path: str
    message: str
    kind: str = "invalid_value"
    source: str = ""
    """The file it stands in, where one error speaks of several."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(FanoutError):
    """Names the file and, for every fault, its JSON path."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{fault.source or source}: {fault}" for fault in self.faults))


class RequestError(FanoutError):
    """Names every wrong field; `faults` is never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class ServerError(FanoutError):
    """What a Fanout server said, or that none was there."""


class ProviderError(FanoutError):
    """One upstream attempt failed."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that look most like `name`, best first: by shared pairs of letters, case aside.

    Cheap enough for the event loop where difflib is not: 0.3 ms over 300 names.
    """
    wanted = _pairs(name)
    scored = ((_likeness(wanted, _pairs(other)), other) for other in dict.fromkeys(known))
    return [other for score, other in sorted(scored, key=lambda item: (-item[0], item[1]))[:most] if score >= 0.4]


@lru_cache(maxsize=4096)
def _pairs(name: str) -> frozenset[str]:
    folded = f"^{name[:64].lower()}$"
    return frozenset(folded[i : i + 2] for i in range(len(folded) - 1))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Dice's coefficient."""
    return 2 * len(one & other) / (len(one) + len(other))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean `x`?" where something is near, else nothing."""
    names = near(name, known)
    return f"; did you mean {' or '.join(f'`{other}`' for other in names)}?" if names else ""


def faults_of(error: ValidationError, model: type[BaseModel] = BaseModel) -> list[Fault]:
    """Every fault that pydantic found, in our words: where, what was given, what is allowed.

    Args:
        model: what the data was meant for, to name the fields near an unknown one.
    """
    return [_fault(detail, model) for detail in error.errors(include_url=False)]


KEY = "[key]"
"""What pydantic adds to the location of an object's name that is itself at fault."""


def json_path(location: Sequence[str | int]) -> str:
    """`("models", "a/b", "price", 0)` → `models["a/b"].price[0]`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.replace("_", "a").replace("-", "a").isalnum() or step.startswith("$"):
            path += f".{step}" if path else step
        elif step != KEY:
            path += f"[{json.dumps(step, ensure_ascii=False)}]"
    return path


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    location, kind = detail["loc"], detail["type"]
    if kind == "missing":
        return Fault(json_path(location), "is required", "missing_required_parameter")
    if kind == "extra_forbidden":
        name, known = str(location[-1]), _fields_at(model, location[:-1])
        hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        return Fault(json_path(location), f"unknown field `{name}`{hint}", "unknown_parameter")
    if kind == "json_invalid":
        return Fault("", f"the body is not valid JSON: {detail['ctx']['error']}", "invalid_json")
    wrong = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return Fault(json_path(location), wrong)
    shown = _named(detail["input"]) if kind.endswith("_type") else _shown(detail["input"])
    return Fault(json_path(location), f"{shown} is not allowed: {wrong[0].lower()}{wrong[1:]}")


def _shown(value: Any) -> str:
    """A value as JSON has it, cut where it is long."""
    if isinstance(value, str):
        return f"`{value}`" if len(value) <= 80 else f"`{value[:77]}…`"
    return json.dumps(value) if value is None or isinstance(value, (bool, int, float)) else _named(value)


def _named(value: Any) -> str:
    """What a value is. What is in it may be a key or a prompt that stands in the wrong place."""
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, (list, tuple)) else _shown(value)


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The fields allowed at a location: follows it through nested models, dicts and lists."""
    types: list[Any] = [model]
    for step in location:
        types = [inner for outer in types for inner in _step(outer, step)]
    models = [item for item in types if isinstance(item, type) and issubclass(item, BaseModel)]
    return [field.alias or name for item in models for name, field in item.model_fields.items()]


def _step(outer: Any, step: str | int) -> list[Any]:
    if isinstance(outer, type) and issubclass(outer, BaseModel):
        by_name = {field.alias or name: field for name, field in outer.model_fields.items()}
        if step not in by_name:  # the tag of a union, which pydantic puts into the location
            return [outer] if step == outer.__name__ else []
        return _unwrapped(by_name[str(step)].annotation)
    if isinstance(outer, type) or not get_args(outer):
        return []
    return _unwrapped(get_args(outer)[-1] if get_origin(outer) is dict else get_args(outer)[0])


def _unwrapped(annotation: Any) -> list[Any]:
    """The members of a union, Annotated wrappers taken off."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _unwrapped(member)]
    return [annotation]
