"""Embeddings in Google's format.

Quirks (evidence: google-genai 3.3.0 `models.py` and `_transformers.py`, ai.google.dev, cloud.google.com):
- The Gemini API takes all texts at `:batchEmbedContents`; every request of the batch names the model again.
- Vertex has two ways: `:predict`, whose fields are in snake case, and for newer models `:embedContent`, one text at a time.
- Vertex counts tokens for each text; the Gemini API reports them for some models only.

Source: https://ai.google.dev/api/embeddings for every wire field.
"""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion, FittedParameters, Query, Target
from fanout.core.usage import sum_complete
from fanout.providers.gemini.adapter import Gemini, build_model_url
from fanout.providers.gemini.vertex import Vertex
from fanout.providers.mapping.embeddings import build_embedding_usage, build_embeddings, list_texts
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects
from fanout.providers.parameters import fit
from fanout.providers.transport.task_provider import TaskProvider

SPELLINGS: Mapping[str, str] = {
    "dimensions": "outputDimensionality",
    "task_type": "taskType",
    "auto_truncate": "autoTruncate",
}
"""OpenAI's name, and Google's in snake case → the one on the wire."""
OF_VERTEX_ALONE = frozenset({"auto_truncate", "autoTruncate"})
NAMES = frozenset({*SPELLINGS, *SPELLINGS.values(), "title"})


class GeminiEmbeddings(TaskProvider, Gemini):
    """The Gemini API's embeddings."""

    passed_on = NAMES - OF_VERTEX_ALONE

    def fit(self, target: Target, query: Query) -> FittedParameters:
        fitted = fit(query, self.parameters)
        sent = {SPELLINGS.get(name, name): value for name, value in fitted.sent.items()}
        return FittedParameters(sent, fitted.ignored, fitted.adjusted)

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        model = call.target.model or ""
        name = model if model.startswith("models/") else f"models/{model}"
        requests = [
            {"model": name, "content": {"parts": [{"text": text}]}, **call.fitted.sent}
            for text in list_texts(self.origin(call), call)
        ]
        return build_model_url(self.require_base(), model, "batchEmbedContents"), {"requests": requests}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        raw = as_object(head.get("usageMetadata"))
        usage = build_embedding_usage(as_count(raw.get("promptTokenCount")), raw)
        return build_embeddings(origin, call, head, [item.get("values") for item in as_objects(head.get("embeddings"))], usage)


class VertexEmbeddings(GeminiEmbeddings, Vertex):
    """Vertex AI's embeddings."""

    passed_on = NAMES

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        origin, model, sent = self.origin(call), call.target.model or "", call.fitted.sent
        texts = list_texts(origin, call)
        if has_embed_content(model):
            if len(texts) > 1:
                raise origin.request_error(f"embeds one text at a time with `{model[:80]}`, not {len(texts)}", "input")
            fields: JsonObject = {"content": {"parts": [{"text": texts[0]}]}}
            if sent:
                fields["embedContentConfig"] = sent
            return build_model_url(self.require_base(), model, "embedContent"), fields
        of_text = {name: sent[wire] for name, wire in (("task_type", "taskType"), ("title", "title")) if wire in sent}
        fields = {"instances": [{"content": text, **of_text} for text in texts]}
        if parameters := {name: value for name, value in sent.items() if name not in ("taskType", "title")}:
            fields["parameters"] = parameters
        return build_model_url(self.require_base(), model, "predict"), fields

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        if has_embed_content(call.target.model or ""):
            return super().read(origin, call, {**head, "embeddings": [head.get("embedding")]})
        found = [as_object(item.get("embeddings")) for item in as_objects(head.get("predictions"))]
        raw = {"statistics": [as_object(item.get("statistics")) for item in found]}
        tokens = sum_complete(as_count(item.get("token_count")) for item in raw["statistics"])
        usage = build_embedding_usage(tokens, raw)
        return build_embeddings(origin, call, head, [item.get("values") for item in found], usage)


def has_embed_content(model: str) -> bool:
    """Tell if Vertex serves a model at `:embedContent`. Source: google-genai 3.3.0 `t_is_vertex_embed_content_model`."""
    return ("gemini" in model and model != "gemini-embedding-001") or "maas" in model
