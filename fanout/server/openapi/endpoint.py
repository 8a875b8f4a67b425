"""An endpoint and its answers: what the router and the OpenAPI document are made from.

To add an endpoint, declare an `Endpoint` beside its handler and list it in `server/endpoints.py`. Its answers' shapes are the
`TypedDict`s that the renderers in `fanout/rendering` return; each is named `<component>Json`, and the `Doc`s of its
fields are the descriptions. `answers.py` has the statuses that many endpoints share.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from fanout.core.json_text import JsonObject

JSON, EVENTS, MULTIPART = "application/json", "text/event-stream", "multipart/form-data"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shape = type[object]
"""A `TypedDict` of an answer."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a stream."""

    data: Shape | tuple[Shape, ...]
    """Shape of each event's data, which is JSON."""
    done: bool = True
    """Whether the data of the last event is `[DONE]`."""


Content = Shape | tuple[Shape, ...] | Events | JsonObject
"""A shape, one of several shapes, the events of a stream, or a JSON schema."""


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """One status of an endpoint."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    """Media type → content."""
    examples: Mapping[str, object] = field(default_factory=dict)
    """Name → JSON answer."""
    headers: tuple[str, ...] = ()
    """Names of `document.HEADERS`, beside those that every answer has."""


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A method and path, its handler, and its description."""

    method: str
    path: str
    """As aiohttp's router writes it: `/v1/models/{model:.+}`."""
    handler: Handler
    id: str
    tag: str
    """One of `document.TAGS`."""
    summary: str
    answers: Mapping[int, StatusAnswer]
    description: str = ""
    body: type[BaseModel] | None = None
    form: JsonObject | None = None
    """Schema of a `multipart/form-data` body."""
    examples: Mapping[str, JsonObject] = field(default_factory=dict)
    """Name → JSON body; or, if there is no body, the parameters of a query. All of them work on a fresh machine."""
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    """Names of `document.REQUEST_HEADERS`."""
    path_parameters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → description and example."""
    is_public: bool = False
    """Needs no key."""

    @property
    def template(self) -> str:
        """The path without the patterns of its parameters: `/v1/models/{model}`."""
        return re.sub(r"\{(\w+):[^}]+\}", r"{\1}", self.path)

    @property
    def route(self) -> tuple[str, str]:
        """Method and template."""
        return self.method, self.template
