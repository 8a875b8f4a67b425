"""Comparison of answers with the shapes that declare them."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from fanout.server.endpoints import ENDPOINTS
from fanout.server.openapi.components import list_shapes
from fanout.server.openapi.endpoint import EVENTS, JSON, Content
from tests.support.client import Reply

BY_ROUTE = {endpoint.route: endpoint for endpoint in ENDPOINTS}


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


def check_content(value: Any, content: Content) -> None:
    """Check that an answer has one of the documented shapes."""
    faults = []
    for shape in list_shapes(content):
        try:
            check_shape(value, shape)
        except ValueError as error:
            faults.append(error)
        else:
            return
    raise ExceptionGroup(f"{value} is not as documented", faults)


def check_answer(route: tuple[str, str], got: Reply) -> None:
    """Check an answer against the description of its endpoint."""
    answers = BY_ROUTE[route].answers
    assert got.status in answers, f"{route} answered {got.status}: {got.body!r}"
    content = answers[got.status].content
    if got.headers["Content-Type"].startswith(EVENTS):
        for event in got.events:
            if event != "[DONE]":
                check_content(event, content[EVENTS])
    else:
        check_content(got.json, content[JSON])
