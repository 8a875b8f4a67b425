"""An adapter outside the package whose models answer with the account of the call; the model `half` breaks off."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fanout.core.errors import ProviderError
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, FittedParameters, Query, Target
from fanout.providers import OnHeaders


def create(settings: Any, session: Any) -> AccountAdapter:
    """See `providers.create`."""
    return AccountAdapter()


class AccountAdapter:
    """A provider."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        if call.target.model == "half":
            raise ProviderError(Failure("network", "broke off", partial="half an ans"))
        return Completion((Choice(Answer(str(call.account_id)), "stop"),))

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield await self.complete(call)
