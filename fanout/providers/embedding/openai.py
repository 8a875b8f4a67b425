"""Embeddings in OpenAI's format, which most hosts speak.

Quirks (evidence: openai 3.51.0, mistralai, the hosts' documentation):
- Vectors are requested in base64: fewer bytes than numbers in decimal, and exact. Hosts that do not know it send numbers; one
  that refuses it drops `encoding_format` in its row.
- No order of the vectors is promised: each bears its number.
"""

from __future__ import annotations

from yarl import URL

from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion
from fanout.providers.mapping.embeddings import build_embedding_usage, build_embeddings
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.openai.azure import Azure
from fanout.providers.parameter_tables import OPENAI_EMBEDDINGS
from fanout.providers.transport.task_provider import TaskProvider


class OpenAiEmbeddings(TaskProvider, OpenAi):
    """A host's embeddings at `/embeddings` below its base address."""

    table = OPENAI_EMBEDDINGS
    passed_on = None

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        fields: JsonObject = {**call.fitted.sent, "model": call.target.model, "input": call.query.inputs}
        if "encoding_format" not in self.parameters.dropped:
            fields["encoding_format"] = "base64"
        return self.find_url(call, "/embeddings"), fields

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        items, raw = as_objects(head.get("data")), as_object(head.get("usage"))
        places = [as_count(item.get("index")) for item in items]
        # Where the numbers are missing or wrong, as they stand.
        if sorted(place for place in places if place is not None) == list(range(len(items))):
            items = [item for _, item in sorted(zip(places, items, strict=True), key=lambda pair: pair[0] or 0)]
        usage = build_embedding_usage(as_count(raw.get("prompt_tokens")), raw) if raw else None
        return build_embeddings(origin, call, head, [item.get("embedding") for item in items], usage)


class AzureEmbeddings(OpenAiEmbeddings, Azure):
    """The embeddings of a deployment at Azure."""
