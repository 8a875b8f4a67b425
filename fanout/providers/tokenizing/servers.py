"""Servers of one's own that speak OpenAI's format, and have `/tokenize` beside it, each in its own way.

Quirks (evidence: vLLM `entrypoints/serve/tokenize`, llama.cpp's `tools/server/README.md`, TGI's `docs/openapi.json`; a real
llama.cpp server):
- The address has no version: it stands beside `/v1`.
- llama.cpp has no messages there: `/apply-template` turns them into the prompt. A piece that is no UTF-8 is a list of bytes.
- TGI answers with a bare list, and has `/chat_tokenize` for messages.
"""

from __future__ import annotations

from dataclasses import replace

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Call, Choice, Completion, FittedParameters, Query, Target
from fanout.providers import OnHeaders
from fanout.providers.mapping.completions import build_completion
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object, as_objects
from fanout.providers.mapping.prompt_tokens import RETURN_TEXTS, SPECIAL, build_tokens
from fanout.providers.openai.adapter import OpenAi, convert_prompt
from fanout.providers.parameters import fit
from fanout.providers.transport.task_provider import TaskProvider


class VllmTokens(TaskProvider, OpenAi):
    """vLLM's `/tokenize`, whose spelling is that of `/v1/tokenize`."""

    passed_on = None

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        name, prompt = convert_prompt(call.query)
        return self.build_root_url("/tokenize"), {**call.fitted.sent, "model": call.target.model, name: prompt}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        texts = head.get("token_strs")
        known = texts if isinstance(texts, list) else None
        return build_tokens(origin, head, head.get("tokens"), known, head.get("max_model_len"))


class LlamaCppTokens(TaskProvider, OpenAi):
    """llama.cpp's `/tokenize`."""

    passed_on = None

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._template = LlamaCppTemplate(settings, session)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        fitted = fit(query, self.parameters)
        renamed = {SPECIAL: "add_special", RETURN_TEXTS: "with_pieces"}
        return replace(fitted, sent={renamed.get(name, name): value for name, value in fitted.sent.items()})

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        """See `Provider.complete`."""
        if call.query.messages is not None:
            made = await self._template.complete(call)
            call = replace(call, query=replace(call.query, messages=None, prompt=made.choices[0].message.text, size=None))
        return await super().complete(call, on_headers)

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        # Beginnings and ends of a text have tokens by default, as in the server's own completions.
        defaults = {"add_special": True, "with_pieces": False}
        return self.build_root_url("/tokenize"), {**defaults, **call.fitted.sent, "content": convert_prompt(call.query)[1]}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        head = as_object(answer)
        tokens = head.get("tokens")
        pieces = as_objects(tokens)
        if not pieces:
            return build_tokens(origin, head, tokens)
        return build_tokens(origin, head, [piece.get("id") for piece in pieces], [piece.get("piece") for piece in pieces])


class LlamaCppTemplate(TaskProvider, OpenAi):
    """llama.cpp's `/apply-template`, whose answer is the prompt."""

    passed_on = None

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        others = {name: value for name, value in call.fitted.sent.items() if name not in ("add_special", "with_pieces")}
        return self.build_root_url("/apply-template"), {**others, "messages": convert_prompt(call.query)[1]}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        prompt = as_object(answer).get("prompt")
        if not isinstance(prompt, str):
            raise origin.answer_error("sent no prompt for the messages", "unexpected_shape")
        return build_completion(origin, {}, (Choice(Answer(prompt), "stop"),), None)


class TgiTokens(TaskProvider, OpenAi):
    """TGI's `/tokenize`, and for messages `/chat_tokenize`."""

    passed_on = frozenset({SPECIAL, RETURN_TEXTS})

    def write(self, call: Call) -> tuple[URL, JsonObject]:
        name, prompt = convert_prompt(call.query)
        if name == "messages":
            return self.build_root_url("/chat_tokenize"), {"model": call.target.model, "messages": prompt}
        special = {SPECIAL: call.fitted.sent[SPECIAL]} if SPECIAL in call.fitted.sent else {}
        return self.build_root_url("/tokenize"), {"inputs": prompt, **special}

    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        tokens = answer if isinstance(answer, list) else as_object(answer).get("tokenize_response")
        if not isinstance(tokens, list):
            raise origin.answer_error("sent an answer without tokens", "unexpected_shape")
        pieces = as_objects(tokens)
        return build_tokens(origin, {}, [piece.get("id") for piece in pieces], [piece.get("text") for piece in pieces])
