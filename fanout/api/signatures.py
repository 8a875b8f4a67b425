"""Signatures of functions whose keyword arguments are a `TypedDict`: for `help`, and for notebooks, which read no types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Absent:
    """Default of a keyword that has none: as in stubs."""

    def __repr__(self) -> str:
        return "..."


ABSENT = Absent()


def name_options(options: type[object]) -> Callable[[Function], Function]:
    """Give a function the keywords of `options` as its signature, in place of its `**options`."""

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        first = [parameter for parameter in own.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=ABSENT, annotation=getattr(hint, "__forward_arg__", hint))
            for name, hint in options.__annotations__.items()
        ]
        function.__signature__ = own.replace(parameters=[*first, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate
