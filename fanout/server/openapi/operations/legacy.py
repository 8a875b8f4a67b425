"""Descriptions that are not yet declared beside their handlers: each becomes an `Endpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from fanout.core.json_text import JsonObject
from fanout.server.openapi.endpoint import Answer, Endpoint, Handler


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    body: type[BaseModel] | None = None
    form: JsonObject | None = None
    examples: Mapping[str, JsonObject] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    path: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    public: bool = False

    def at(self, method: str, path: str, handler: Handler) -> Endpoint:
        """Return the endpoint."""
        return Endpoint(
            method,
            path,
            handler,
            id=self.id,
            tag=self.tag,
            summary=self.summary,
            answers=self.answers,
            description=self.description,
            body=self.body,
            form=self.form,
            examples=self.examples,
            query=self.query,
            headers=self.headers,
            path_parameters=self.path,
            is_public=self.public,
        )


Operations = Mapping[tuple[str, str], Operation]
