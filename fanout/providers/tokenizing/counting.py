"""Hosts that count the tokens of all that a model would read, and tell no ids: messages, system and tools.

A prompt is counted as a message of the user's, with what the format puts around it.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens, https://ai.google.dev/api/tokens, google-genai 3.3.0,
botocore's service model of `CountTokens`, openai 3.51.0 `resources/responses/input_tokens.py` for every wire field.
"""

from __future__ import annotations

from typing import ClassVar

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion, FittedParameters, Query, Target
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.bedrock import converse
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.gemini.adapter import BESIDE_CONFIG, Gemini, build_model_url
from fanout.providers.gemini.vertex import Vertex
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object
from fanout.providers.mapping.prompt_tokens import build_token_count, keep_parameters
from fanout.providers.openai.responses import Responses
from fanout.providers.transport.task_provider import TaskProvider


class CountingProvider(TaskProvider):
    """A host that answers with a number alone."""

    count_field: ClassVar[str]

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        return build_token_count(origin, head, head.get(self.count_field))


class AnthropicTokens(CountingProvider, Anthropic):
    """Anthropic's `/v1/messages/count_tokens`."""

    count_field = "input_tokens"

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._count_url = self.build_url(f"{self.build_prefix('v1')}/messages/count_tokens")

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return keep_parameters(Anthropic.fit(self, target, query), query, ("tools", "tool_choice"))

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        return self.require_url(self._count_url), self.build_body(call)


class GeminiTokens(CountingProvider, Gemini):
    """The Gemini API's `:countTokens`."""

    count_field = "totalTokens"

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return keep_parameters(Gemini.fit(self, target, query), query, BESIDE_CONFIG)

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        model, body = call.target.model or "", self.build_body(call)
        if not self.is_vertex:
            # Bare `contents` would be counted without the system message and the tools.
            body = {"generateContentRequest": {"model": f"models/{model.removeprefix('models/')}", **body}}
        return build_model_url(self.require_base(), model, "countTokens"), body


class VertexTokens(GeminiTokens, Vertex):
    """Vertex AI's `:countTokens`."""


class BedrockTokens(CountingProvider, Bedrock):
    """Bedrock's `CountTokens`."""

    count_field = "inputTokens"

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return keep_parameters(Bedrock.fit(self, target, query), query, ("toolConfig",))

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        body = {"converse": converse.build_body(self.origin(call), call.fitted.sent, call.query)}
        return self.build_model_url(call.target.model or "", "count-tokens"), {"input": body}


class OpenAiTokens(CountingProvider, Responses):
    """OpenAI's `/responses/input_tokens`."""

    count_field = "input_tokens"

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._count_url = self.build_url("/responses/input_tokens")

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return keep_parameters(Responses.fit(self, target, query), query, ("tools", "tool_choice", "text", "reasoning"))

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        return self.require_url(self._count_url), self.build_body(call)
