"""The interface of what answers a question: this process, or a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from fanout.cli.ask.question import AskQuestion
from fanout.core.json_text import JsonObject


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """A piece of an answer, or its end."""

    index: int
    text: str
    choice: JsonObject | None = None
    """The choice as `POST /v1/completion` returns it, at the end of the answer."""


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """An answer to come."""

    label: str
    model: str
    """Name by which a conversation goes on with it."""
    sample: int
    is_member: bool = False
    """It is an answer for a fusion alone."""


class AskBackend(Protocol):
    """Source of answers, question by question; a request that is refused raises RequestError or ServerError."""

    async def choose_models(self) -> tuple[tuple[str, ...], str]:
        """Return the models to ask where none is named, and the reason in words."""

    async def expand(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that `-m` options stand for."""

    async def plan(self, question: AskQuestion) -> Mapping[int, PlannedAnswer]:
        """Return the answers to come, by index, and keep the question for `stream` or `complete`."""

    def stream(self) -> AsyncGenerator[AnswerEvent]:
        """Ask, and yield the answers as they are written."""

    async def complete(self) -> tuple[JsonObject, bool]:
        """Ask, and return what the server would answer, and whether every model answered."""
