"""The interface of a provider, and its construction from a row of the configuration."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fanout.core.authorities import import_by_name
from fanout.core.errors import ConfigError, Fault
from fanout.core.schema import Call, Completion, Delta, FittedParameters, Query, Target, Task

if TYPE_CHECKING:
    import aiohttp

    from fanout.config.providers_file import ProviderRow
    from fanout.config.settings import ProviderSettings

OnHeaders = Callable[[Mapping[str, str]], None]
"""Receives the headers of an attempt's answer, from which the account's limits are read."""

ADAPTERS = {
    "openai": "fanout.providers.openai.adapter:OpenAi",
    "responses": "fanout.providers.openai.responses:Responses",
    "azure": "fanout.providers.openai.azure:Azure",
    "anthropic": "fanout.providers.anthropic.adapter:Anthropic",
    "gemini": "fanout.providers.gemini.adapter:Gemini",
    "vertex": "fanout.providers.gemini.vertex:Vertex",
    "cohere": "fanout.providers.cohere:Cohere",
    "bedrock": "fanout.providers.bedrock.adapter:Bedrock",
    "ollama": "fanout.providers.ollama:Ollama",
    "scale": "fanout.providers.scale:Scale",
    "scale-llm-engine": "fanout.providers.scale_llm_engine:LlmEngine",
    "ngram": "fanout.providers.ngram.adapter:create",
}

EMBEDDERS = {
    "openai": "fanout.providers.embedding.openai:OpenAiEmbeddings",
    "azure": "fanout.providers.embedding.openai:AzureEmbeddings",
    "gemini": "fanout.providers.embedding.gemini:GeminiEmbeddings",
    "vertex": "fanout.providers.embedding.gemini:VertexEmbeddings",
    "cohere": "fanout.providers.embedding.cohere:CohereEmbeddings",
    "bedrock": "fanout.providers.embedding.bedrock:BedrockEmbeddings",
    "ollama": "fanout.providers.embedding.ollama:OllamaEmbeddings",
    "ngram": ADAPTERS["ngram"],
}
"""By adapter."""
TOKENIZERS = {
    "anthropic": "fanout.providers.tokenizing.counting:AnthropicTokens",
    "gemini": "fanout.providers.tokenizing.counting:GeminiTokens",
    "vertex": "fanout.providers.tokenizing.counting:VertexTokens",
    "bedrock": "fanout.providers.tokenizing.counting:BedrockTokens",
    "cohere": "fanout.providers.tokenizing.texts:CohereTokens",
    "ngram": ADAPTERS["ngram"],
    "responses": "fanout.providers.tokenizing.counting:OpenAiTokens",
    "openai/responses": "fanout.providers.tokenizing.counting:OpenAiTokens",
    "openai/vllm": "fanout.providers.tokenizing.servers:VllmTokens",
    "openai/llama.cpp": "fanout.providers.tokenizing.servers:LlamaCppTokens",
    "openai/tgi": "fanout.providers.tokenizing.servers:TgiTokens",
    "openai/xai": "fanout.providers.tokenizing.texts:XaiTokens",
}
"""By adapter, and behind it the `tokenizer` of a row: OpenAI's format has none that all of its hosts share."""


class Provider(Protocol):
    """One upstream. It knows its wire format, and nothing of retries, limits, the server or the store."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        """Return what becomes of the parameters of `query` here: sent, ignored or adjusted. Pure."""
        ...

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        """Make one attempt and return the whole answer.

        Args:
            call: what to send.
            on_headers: to be called as soon as the headers have arrived, also those of an error, so that other calls wait
                instead of being refused too. An adapter whose upstream reports no limits ignores it.

        Raises:
            ProviderError: the attempt failed; nothing else is raised.
        """
        ...

    def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        """Make one attempt and yield its answer in pieces: deltas, then the whole completion last.

        Args:
            call: what to send.
            on_headers: as for `complete`.

        Raises:
            ProviderError: the attempt failed, perhaps after some deltas; nothing else is raised.
        """
        ...


@runtime_checkable
class PreparableProvider(Protocol):
    """A provider with something to do before its first call."""

    async def prepare(self) -> None:
        """Do it; return at once where it has been done."""
        ...


@runtime_checkable
class ClosedProvider(Protocol):
    """A provider whose models are all known: another id is none of its models."""

    def knows(self, model: str) -> bool:
        """Tell if the id is one of its models'."""
        ...


def find_adapter(row: ProviderRow, task: Task) -> str | None:
    """Return the place of the code that does a task in the format of a row; `None` where its format has no such thing."""
    if task == "embed":
        return EMBEDDERS.get(row.adapter)
    if task == "tokenize":
        return TOKENIZERS.get(f"{row.adapter}/{row.tokenizer}" if row.tokenizer else row.adapter)
    return ADAPTERS.get(row.adapter, f"{row.adapter}:create")


def import_adapters() -> None:
    """Import all that providers are made of. Run it in a thread, else the first call of a format does it on the event loop."""
    for place in (*ADAPTERS.values(), *EMBEDDERS.values(), *TOKENIZERS.values()):
        import_module(place.partition(":")[0])


def create(settings: ProviderSettings, session: aiohttp.ClientSession, task: Task = "answer") -> Provider:
    """Create the provider of one row: its adapter is one of `ADAPTERS` or the dotted name of a module outside the package.

    Such a module has a `create(settings, session)`.

    Raises:
        ConfigError: there is no such module, or it has no `create`.
    """
    place = find_adapter(settings.row, task)
    assert place is not None, "a call whose provider has no such task has a refusal and is never sent"
    module, name = place.split(":")
    try:
        provider: Provider = getattr(import_by_name(module), name)(settings, session)
    except (ImportError, AttributeError, SystemExit) as error:  # the last would end a server that reloads
        message = f"cannot load `{settings.adapter}` ({error}); known adapters: {', '.join(ADAPTERS)}, or a dotted module name"
        raise ConfigError(settings.source, [Fault(f"providers.{settings.name}.adapter", message)]) from error
    return provider
