"""Hosts that tell the tokens of a text, always with their spellings.

Source: https://docs.cohere.com/v1/reference/tokenize, https://docs.x.ai/docs/api-reference#tokenize-text for every wire field.
"""

from __future__ import annotations

from yarl import URL

from fanout.core.json_text import JsonObject
from fanout.core.schema import Call, Completion
from fanout.providers.cohere import Cohere
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object, as_objects
from fanout.providers.mapping.prompt_tokens import RETURN_TEXTS, build_tokens, get_text
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.transport.task_provider import TaskProvider


class CohereTokens(TaskProvider, Cohere):
    """Cohere's `/v1/tokenize`: there is none in version 2."""

    passed_on = frozenset({RETURN_TEXTS})

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        fields = {"model": call.target.model, "text": get_text(self.origin(call), call.query)}
        return self.build_root_url("/v1/tokenize"), fields

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        texts = head.get("token_strings")
        return build_tokens(origin, head, head.get("tokens"), texts if isinstance(texts, list) else None)


class XaiTokens(TaskProvider, OpenAi):
    """xAI's `/v1/tokenize-text`."""

    passed_on = frozenset({RETURN_TEXTS})

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        fields = {"model": call.target.model, "text": get_text(self.origin(call), call.query)}
        return self.build_root_url("/v1/tokenize-text"), fields

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        tokens = as_objects(head.get("token_ids"))
        if not isinstance(head.get("token_ids"), list):
            raise origin.answer_error("sent an answer without tokens", "unexpected_shape")
        return build_tokens(
            origin, head, [token.get("token_id") for token in tokens], [token.get("string_token") for token in tokens]
        )
