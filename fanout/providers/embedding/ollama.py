"""Embeddings in Ollama's own format.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings for every wire field.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion
from fanout.providers.mapping.embeddings import build_embedding_usage, build_embeddings, list_texts
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object
from fanout.providers.ollama import Ollama
from fanout.providers.transport.task_provider import TaskProvider


class OllamaEmbeddings(TaskProvider, Ollama):
    """An Ollama server's embeddings at `/api/embed`."""

    passed_on = frozenset({"dimensions", "truncate", "keep_alive", "options"})

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._embed_url = self.build_url("/api/embed")

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        texts = list_texts(self.origin(call), call)
        return self.require_url(self._embed_url), {**call.fitted.sent, "model": call.target.model, "input": texts}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        raw = {name: value for name, value in head.items() if name.endswith(("_count", "_duration"))}
        usage, vectors = build_embedding_usage(as_count(raw.get("prompt_eval_count")), raw), head.get("embeddings")
        return build_embeddings(origin, call, head, vectors if isinstance(vectors, list) else [], usage)
