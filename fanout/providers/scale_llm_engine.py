"""Scale's LLM Engine, version 1: text from open models, hosted by Scale or by oneself; its `/v2` speaks OpenAI's format.

Quirks (evidence: scale-llm-engine 0.0.0b45, the model engine's own data types):
- The key is the user's name of HTTP's Basic scheme, its password empty, and also stands in `x-api-key`.
- The model stands in the query; a whole answer and a stream have addresses of their own.
- `max_new_tokens` and `temperature` are required: our own values where the caller named none are reported as adjusted.
- No finish reason: a stream has `finished`, a whole answer nothing. None is made up.
- An error in a stream is `{"error": {"status_code": …, "content": {"error": "…"}}}` in an event of its own.
- `num_prompt_tokens` may be missing; in a stream the counts are of so far.
"""

from __future__ import annotations

from base64 import b64encode

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Call, Choice, Completion, FittedParameters, Query, Target, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import build_completion, build_usage
from fanout.providers.mapping.error_objects import find_error, is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects, as_text
from fanout.providers.mapping.messages import report_left_out
from fanout.providers.mapping.openai_answers import parse_logprobs
from fanout.providers.parameter_tables import LLM_ENGINE
from fanout.providers.parameters import accept, add_default, fit
from fanout.providers.scale import flatten_to_prompt
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

DEFAULT_MAX_TOKENS = 1024
"""Fits beside a prompt into the 4,096 tokens of the smallest models there."""
DEFAULT_TEMPERATURE = 1.0
"""The model's own distribution, as everywhere where no temperature is sent."""


class TokenReader(AnswerReader):
    """A streamed answer: a token an event."""

    _usage: Usage | None = None
    _request_id: object = None

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if is_error(body):
            raise TokenReader.parse_error(origin, body)
        output = body.get("output")
        if not isinstance(output, dict):
            raise origin.no_answer_error("output", body)
        answer = Answer(as_text(output.get("text")))
        choice = Choice(answer, None, None, _parse_logprobs(as_objects(output.get("tokens"))))
        return build_completion(origin, {"id": body.get("request_id")}, (choice,), _parse_usage(output))

    @staticmethod
    def parse_error(origin: Origin, body: JsonObject) -> ProviderError:
        return origin.upstream_error(_find_error(body), request_id=body.get("request_id"))

    def _read_event(self, event: JsonObject, size: int) -> None:
        if is_error(event):
            raise self.parse_error(self._origin, event)
        self._request_id = event.get("request_id") or self._request_id
        output = as_object(event.get("output"))
        token = output.get("token")
        logprobs = _parse_logprobs([token]) if isinstance(token, dict) else None
        self._add(size, text=as_text(output.get("text")), logprobs=logprobs)
        # Counts of so far: the last one stands.
        self._usage = _parse_usage(output) or self._usage
        if output.get("finished") is True:
            self._finish((None, None))  # ended, but for no reason that is known

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, {"id": self._request_id}, choices, self._usage)


class LlmEngine(JsonProvider):
    """A host of LLM Engine, at `/v1/llm/completions-sync` and `-stream` below its base address."""

    key_header = "x-api-key"
    key_prefix = ""
    reader_class = TokenReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._sync_url = self.build_url(f"{self.build_prefix('v1')}/llm/completions-sync")
        self._stream_url = self.build_url(f"{self.build_prefix('v1')}/llm/completions-stream")
        self._accepted = accept(LLM_ENGINE, settings.row.parameters)
        if (key := self.read_configured_key()) and hdrs.AUTHORIZATION not in self._headers:
            self._headers[hdrs.AUTHORIZATION] = _to_basic(key)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        fitted = add_default(fit(query, self._accepted), self._accepted, "max_tokens", DEFAULT_MAX_TOKENS)
        fitted = add_default(fitted, self._accepted, "temperature", DEFAULT_TEMPERATURE)
        return report_left_out(fitted, query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        url = self.require_url(self._stream_url if stream else self._sync_url)
        fields = {**call.fitted.sent, "prompt": flatten_to_prompt(self._origin, call.query)}
        body = write_body(fields, call)
        # `with_query` quotes the name, which comes from the caller.
        return HttpRequest(url.with_query(model_endpoint_name=call.target.model or ""), self.build_headers(call), body)

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        headers = super().build_headers(call)
        if key := self.read_caller_key(call):  # then they are a copy
            headers[hdrs.AUTHORIZATION] = _to_basic(key)
        return headers

    def origin(self, call: Call) -> Origin:
        """Return the origin of a call; the key as Basic writes it must not be shown either."""
        origin = super().origin(call)
        for key in filter(None, (self.read_caller_key(call), self.read_configured_key())):
            origin = origin.with_secret(_to_basic(key).removeprefix("Basic "))
        return origin


def _to_basic(key: str) -> str:
    """Return the header's value: the key is the user, with no password. Source: RFC 7617 §2."""
    return f"Basic {b64encode(f'{key}:'.encode()).decode()}"


def _find_error(body: JsonObject) -> JsonObject:
    """Return the error object; a stream's has its status beside its sentence, which lies deeper."""
    error = as_object(body.get("error"))
    content = error.get("content")
    if not content:
        return find_error(body)
    sentence = as_text(content) or as_text(as_object(content).get("error"))
    return {"message": sentence, "status_code": error.get("status_code")}


def _parse_usage(output: JsonObject) -> Usage | None:
    raw = {name: value for name, value in output.items() if name.startswith("num_")}
    return build_usage(as_count(raw.get("num_prompt_tokens")), as_count(raw.get("num_completion_tokens")), raw=raw)


def _parse_logprobs(tokens: list[JsonObject]) -> tuple[TokenLogprob, ...] | None:
    return parse_logprobs({"content": [{**token, "logprob": token.get("log_prob")} for token in tokens]}) or None
