"""An adapter outside the package whose models are right as often as their names say: `60/a` says "yes" to 60 % of prompts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from random import Random
from typing import Any

from fanout.core.schema import Answer, Call, Choice, Completion, Delta, FittedParameters, Query, Target
from fanout.providers import OnHeaders


def create(settings: Any, session: Any) -> PlantedAdapter:
    """See `providers.create`."""
    return PlantedAdapter()


def is_right(model: str, prompt: str) -> bool:
    """Return whether a model is right about a prompt: the same every time."""
    return Random(f"{model} {prompt}").random() < int(model.partition("/")[0]) / 100


class PlantedAdapter:
    """A provider."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        assert call.query.messages
        prompt, model = call.query.messages[-1].content, call.target.model
        assert isinstance(prompt, str)
        assert model
        return Completion((Choice(Answer("yes" if is_right(model, prompt) else "no"), "stop"),))

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield await self.complete(call)
