"""Comparison of answers with the shapes that declare them."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter


def check_shape(value: Any, shape: type[Any]) -> None:
    """Check that nothing is missing, of another type, or undeclared.

    Raises:
        ValidationError: names each fault.
    """
    _adapter(shape).validate_python([value])  # type: ignore[arg-type]  # mypy doubts that a class is hashable


@cache
def _adapter(shape: type[Any]) -> TypeAdapter[Any]:
    # A list, because pydantic takes a configuration only for types that cannot have one of their own.
    return TypeAdapter(list[shape], config=ConfigDict(extra="forbid", strict=True))  # type: ignore[valid-type]
