"""An adapter outside the package with bugs whose exceptions quote the prompt and the caller's key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fanout.core.schema import Call, Completion, Delta, FittedParameters, Query, Target
from fanout.providers import OnHeaders


def create(settings: Any, session: Any) -> LeakyAdapter:
    """See `providers.create`."""
    return LeakyAdapter()


class LeakyAdapter:
    """A provider."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        prompt = (call.query.messages or ())[0].content
        secret = call.credential.key.get_secret_value() if call.credential else ""
        if call.target.model == "forgotten":
            asyncio.get_running_loop().create_task(_fail(f"{prompt} {secret}"))
        try:
            return _search(f"while reading {prompt} with {secret}")
        except LookupError as error:
            raise ValueError(prompt, secret) from error

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield await self.complete(call)


def _search(text: str) -> Completion:
    raise LookupError(text)


async def _fail(text: str) -> None:
    raise ExceptionGroup(text, [OSError(28, text)])
