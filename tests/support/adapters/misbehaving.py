"""An adapter outside the package whose models break the contract of a provider, each as its name suggests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fanout.core.errors import ProviderError
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, FittedParameters, Query, Target, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers import OnHeaders


def create(settings: Any, session: Any) -> MisbehavingAdapter:
    """See `providers.create`."""
    return MisbehavingAdapter()


class MisbehavingAdapter:
    """A provider."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        await asyncio.sleep(0)
        match call.target.model:
            case "bug":
                raise KeyError("not there")
            case "timeout":
                raise TimeoutError
            case "cancelled":
                raise asyncio.CancelledError
            case "account":
                raise ProviderError(Failure("rate_limit", "too much of everything", retry_after_s=0.3, account_wide=True))
            case "boasting":
                figures = Usage(10**30, -5, 3, reported_cost_usd=float("nan"))
                return Completion((Choice(Answer("half and whole"), "stop"),), figures)
        return Completion((Choice(Answer("half and whole"), "stop"),))

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield Delta(call.index, text="half")
        for _ in range(10):
            match call.target.model:
                case "thinking":
                    yield Delta(call.index, reasoning="hm" * 25_000)
                case "calling":
                    yield Delta(call.index, tool_calls=({"function": {"arguments": "1" * 50_000}},))
                case "certain":
                    top = tuple((f"t{place}", -1.0) for place in range(20))
                    yield Delta(call.index, logprobs=(TokenLogprob("t", 0.0, top),) * 50)
            await asyncio.sleep(0)
        if call.target.model != "endless":
            yield await self.complete(call)
