"""What a provider is, and how one is made from its row of the configuration."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fanout.core.errors import ConfigError, Fault
from fanout.core.schema import Call, Completion, Delta, Fitted, Query, Target

if TYPE_CHECKING:
    import aiohttp

    from fanout.config.settings import ProviderSettings

ADAPTERS = {
    "openai": "fanout.providers.openai.adapter",
    "azure": "fanout.providers.openai.azure",
    "anthropic": "fanout.providers.anthropic.adapter",
    "gemini": "fanout.providers.gemini.adapter",
    "vertex": "fanout.providers.gemini.vertex",
    "cohere": "fanout.providers.cohere",
    "bedrock": "fanout.providers.bedrock.adapter",
    "ollama": "fanout.providers.ollama",
    "scale": "fanout.providers.scale",
    "scale-llm-engine": "fanout.providers.scale_llm_engine",
    "ngram": "fanout.providers.ngram.adapter",
}


class Provider(Protocol):
    """One upstream. Knows its wire format; knows nothing of retries, limits, the server or the store."""

    def fit(self, target: Target, query: Query) -> Fitted:
        """What becomes of the parameters of `query` here: sent, ignored or adjusted. Pure."""
        ...

    async def complete(self, call: Call) -> Completion:
        """One attempt, answered whole.

        Raises:
            ProviderError: and nothing else.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[Delta | Completion]:
        """One attempt, answered in pieces: deltas, then the whole completion last.

        Raises:
            ProviderError: and nothing else; also after deltas have been given.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """A provider with something to do before its first call."""

    async def prepare(self) -> None:
        """Does it; at once where it is done."""
        ...


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Provider:
    """The provider of one row: its adapter is a name of ours or the dotted name of a module outside the package.

    Such a module has a `create(settings, session)` of its own.

    Raises:
        ConfigError: there is no such module, or it has no `create`.
    """
    try:
        module = import_module(ADAPTERS.get(settings.adapter, settings.adapter))
        provider: Provider = module.create(settings, session)
    except (ImportError, AttributeError) as error:
        message = f"cannot load `{settings.adapter}` ({error}); known adapters: {', '.join(ADAPTERS)}, or a dotted module name"
        raise ConfigError(settings.source, [Fault(f"providers.{settings.name}.adapter", message)]) from error
    return provider
