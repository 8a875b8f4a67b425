"""Embeddings in Cohere's format, version 2.

Quirks (evidence: cohere 7.3.1, docs.cohere.com):
- `input_type` is required by all models since version 3; `search_document` is sent, and reported, where the caller has none.
- At most 96 texts at once; the vectors come by the form that was requested.
- Tokens are reported as billed units alone.

Source: https://docs.cohere.com/reference/embed for every wire field.
"""

from __future__ import annotations

from dataclasses import replace

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion, FittedParameters, Query, Target
from fanout.core.usage import Usage
from fanout.providers.cohere import Cohere
from fanout.providers.mapping.embeddings import build_embedding_usage, build_embeddings, list_texts
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object
from fanout.providers.parameters import fit
from fanout.providers.transport.task_provider import TaskProvider

INPUT_TYPE = "input_type"
DEFAULT_INPUT_TYPE = "search_document"
PASSED_ON = frozenset({"dimensions", "output_dimension", INPUT_TYPE, "truncate", "max_tokens", "priority"})


class CohereEmbeddings(TaskProvider, Cohere):
    """Cohere's embeddings at `/v2/embed`."""

    passed_on = PASSED_ON

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._embed_url = self.build_url(f"{self.build_prefix('v2')}/embed")

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return add_input_type(rename_dimensions(fit(query, self.parameters), "output_dimension"))

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        fields: JsonObject = {
            **call.fitted.sent,
            "model": call.target.model,
            "texts": list_texts(self.origin(call), call),
            "embedding_types": ["float"],
        }
        return self.require_url(self._embed_url), fields

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        return build_embeddings(origin, call, head, list_floats(head.get("embeddings")), _parse_usage(head))


def rename_dimensions(fitted: FittedParameters, name: str) -> FittedParameters:
    """Return parameters with OpenAI's `dimensions` under the format's own name."""
    if "dimensions" not in fitted.sent:
        return fitted
    sent = dict(fitted.sent)
    return replace(fitted, sent={name: sent.pop("dimensions"), **sent})


def add_input_type(fitted: FittedParameters) -> FittedParameters:
    """Return parameters with the field that the models require, reported as adjusted where the caller has none."""
    if INPUT_TYPE in fitted.sent:
        return fitted
    sent, adjusted = {**fitted.sent, INPUT_TYPE: DEFAULT_INPUT_TYPE}, {INPUT_TYPE: (None, DEFAULT_INPUT_TYPE)}
    return replace(fitted, sent=sent, adjusted={**fitted.adjusted, **adjusted})


def list_floats(embeddings: object) -> list[object]:
    """Return the vectors, be they by form or, as for the older models at Bedrock, bare."""
    floats = embeddings.get("float") if isinstance(embeddings, dict) else embeddings
    return floats if isinstance(floats, list) else []


def _parse_usage(head: JsonObject) -> Usage | None:
    units = as_object(as_object(head.get("meta")).get("billed_units"))
    return build_embedding_usage(as_count(units.get("input_tokens")), units)
