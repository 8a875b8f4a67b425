"""Every exception that leaves a module of ours on purpose.

FanoutError
├── ConfigError        the configuration cannot be used: every fault in it, at once
├── RequestError       a request cannot be carried out: every wrong field, at once
├── StoreError         the database cannot be read or written now
│   └── LeaseLost      another process runs this job by now
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

from fanout.core.schema import Failure

LONGEST_NAME = 64
"""Letters of a name that are looked at."""
LEAST_LIKENESS = 0.4


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


class StoreError(FanoutError):
    """The database cannot be read or written now; why, in its own words."""


class LeaseLost(StoreError):
    """Another process runs this job by now; nothing more is written for it by this one."""

    def __init__(self) -> None:
        super().__init__("another process runs this job now")


class ServerError(FanoutError):
    """What a Fanout server said, or that none was there."""


class ProviderError(FanoutError):
    """One upstream attempt failed."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that look most like `name`, best first: by shared pairs of letters, case aside.

    Cheap enough for the event loop where difflib is not: 0.15 ms over 300 names (2026-11).
    """
    wanted = _pairs(name[:LONGEST_NAME])
    scored: list[tuple[float, str]] = []
    for other in dict.fromkeys(known):
        pairs = _pairs(other)
        likeness = 2 * len(wanted & pairs) / (len(wanted) + len(pairs))  # Dice's coefficient
        if likeness >= LEAST_LIKENESS:
            scored.append((-likeness, other))
    return [other for _, other in sorted(scored)[:most]]


@lru_cache(maxsize=4096)
def _pairs(name: str) -> frozenset[str]:
    folded = f"^{name[:LONGEST_NAME].lower()}$"
    return frozenset(folded[i : i + 2] for i in range(len(folded) - 1))


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """ "; did you mean `x`?" where something is near, else nothing.

    Args:
        prefix: what begins every known name, so that it makes none of them more alike.
    """
    names = near(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known])
    return f"; did you mean {' or '.join(f'`{prefix}{other}`' for other in names)}?" if names else ""


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
    shown = _shown(detail["input"], text=not kind.endswith("_type"))
    return Fault(json_path(location), f"{shown} is not allowed: {wrong[0].lower()}{wrong[1:]}")


def _shown(value: Any, *, text: bool) -> str:
    """A value as JSON has it, or what it is: a text of the wrong type may be a key or a prompt in the wrong place."""
    if isinstance(value, str) and text:
        return f"`{value}`" if len(value) <= 80 else f"`{value[:77]}…`"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    names: dict[type, str] = {str: "a string", dict: "an object", list: "a list", tuple: "a list"}
    return names.get(type(value), f"a `{type(value).__name__}`")


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
