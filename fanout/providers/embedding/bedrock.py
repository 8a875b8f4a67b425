"""Embeddings at AWS Bedrock, where each vendor's models have a body of their own at `/model/{id}/invoke`.

Quirks (evidence: AWS's documentation, "Amazon Titan Embeddings" and "Cohere Embed"):
- Titan embeds one text at a time and has no `input_type`; Cohere's models take up to 96 and require it.
- Tokens are in the header `x-amzn-bedrock-input-token-count`; Titan repeats them in the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion, FittedParameters, Query, Target
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.embedding.cohere import PASSED_ON, add_input_type, list_floats, rename_dimensions
from fanout.providers.mapping.embeddings import build_embedding_usage, build_embeddings, list_texts
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.task_provider import TaskProvider

COUNT_HEADER = "x-amzn-bedrock-input-token-count"


class BedrockEmbeddings(TaskProvider, Bedrock):
    """The embeddings of Titan and Cohere's models at Bedrock."""

    passed_on = PASSED_ON

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._titan_parameters = accept({}, settings.row.parameters, frozenset({"dimensions", "normalize"}))

    def fit(self, target: Target, query: Query) -> FittedParameters:
        if _is_titan(target.model):
            return fit(query, self._titan_parameters)
        return add_input_type(rename_dimensions(fit(query, self.parameters), "output_dimension"))

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        origin, model = self.origin(call), call.target.model or ""
        texts, url = list_texts(origin, call), self.build_model_url(model, "invoke")
        if not _is_titan(model):
            return url, {**call.fitted.sent, "texts": texts, "embedding_types": ["float"]}
        if len(texts) > 1:
            raise origin.request_error(f"embeds one text at a time with `{model[:80]}`, not {len(texts)}", "input")
        return url, {**call.fitted.sent, "inputText": texts[0]}

    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes | bytearray) -> Completion:
        """See `HttpProvider.decode`."""
        completion = super().decode(call, status, headers, body)
        count = headers.get(COUNT_HEADER, "")
        if completion.usage is None and count.isdecimal():
            usage = build_embedding_usage(as_count(int(count[:20])), {COUNT_HEADER: count})
            return replace(completion, usage=usage)
        return completion

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        if not _is_titan(call.target.model):
            return build_embeddings(origin, call, head, list_floats(head.get("embeddings")), None)
        tokens = as_count(head.get("inputTextTokenCount"))
        usage = build_embedding_usage(tokens, {"inputTextTokenCount": tokens})
        return build_embeddings(origin, call, head, [head.get("embedding")], usage)


def _is_titan(model: str | None) -> bool:
    return "titan" in (model or "")
