"""Scale's LLM Engine, version 1: text from open models, hosted by Scale or by oneself. (Its `/v2` speaks OpenAI's format.)

Quirks (evidence: scale-llm-engine 0.0.0b45, the model engine's own data types):
- The key is the user's name of HTTP's Basic scheme, its password empty, and also stands in `x-api-key`.
- The model stands in the query; a whole answer and a stream have addresses of their own.
- `max_new_tokens` and `temperature` are required: what we send where the caller named none is reported as adjusted.
- No finish reason: a stream says `finished`, a whole answer nothing. None is made up.
- An error in a stream is `{"error": {"status_code": …, "content": {"error": "…"}}}` in an event of its own.
- `num_prompt_tokens` may be missing; in a stream the counts are of so far.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, Fitted, Query, Target, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, is_error, refusal
from fanout.providers.mapping.openai_answers import build_completion, parse_logprobs
from fanout.providers.mapping.stream_reader import UNKNOWN_FINISH, StreamReader
from fanout.providers.parameter_tables import LLM_ENGINE
from fanout.providers.parameters import accept, fit, required
from fanout.providers.scale import prompt_of
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import NativeProvider, as_count, as_object, as_objects, as_text

DEFAULT_MAX_TOKENS = 1024
"""Fits beside a prompt into the 4,096 tokens of the smallest models there."""
DEFAULT_TEMPERATURE = 1.0
"""The model's own distribution, as everywhere where no temperature is sent."""


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> LlmEngine:
    """The provider of one row; see `providers.create`."""
    return LlmEngine(settings, session)


class LlmEngine(NativeProvider):
    """A host of LLM Engine, at `/v1/llm/completions-sync` and `-stream` below its base address."""

    key_header = "x-api-key"

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._sync_url = self.build_url(f"{self.build_prefix('v1')}/llm/completions-sync")
        self._stream_url = self.build_url(f"{self.build_prefix('v1')}/llm/completions-stream")
        self._accepted = accept(LLM_ENGINE, settings.row.parameters)
        if (key := self.read_configured_key()) and hdrs.AUTHORIZATION not in self._headers:
            self._headers[hdrs.AUTHORIZATION] = _basic(key)

    def fit(self, target: Target, query: Query) -> Fitted:
        fitted = required(fit(query, self._accepted), self._accepted, "max_tokens", DEFAULT_MAX_TOKENS)
        return required(fitted, self._accepted, "temperature", DEFAULT_TEMPERATURE)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        url = self._stream_url if stream else self._sync_url
        if url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        body = dump({**call.fitted.sent, "prompt": prompt_of(self._origin, call.query)})
        return HttpRequest(url.with_query(model_endpoint_name=call.target.model or ""), self.build_headers(call), body)

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        headers = super().build_headers(call)
        if key := self.read_caller_key(call):  # then they are a copy
            headers[hdrs.AUTHORIZATION] = _basic(key)
        return headers

    def origin(self, call: Call) -> Origin:
        """The key as Basic writes it must not be shown either."""
        keys = filter(None, (self.read_caller_key(call), self.read_configured_key()))
        origin = super().origin(call)
        for key in keys:
            origin = origin.also(_basic(key).removeprefix("Basic "))
        return origin

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        if is_error(body):
            raise self.parse_refusal(origin, None, headers, body)
        output = body.get("output")
        if not isinstance(output, dict):
            raise origin.malformed("sent an answer without output", "no_choices")
        logprobs = _logprobs(as_objects(output.get("tokens")))
        choice = Choice(Answer(as_text(output.get("text"))), None, None, logprobs)
        return build_completion(origin, headers, {"id": body.get("request_id")}, (choice,), _usage(output))

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        return refusal(origin, status, headers, _error(body))

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return LlmEngineEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def _basic(key: str) -> str:
    """Source: RFC 7617 §2; the key is the user, and no password."""
    return f"Basic {b64encode(f'{key}:'.encode()).decode()}"


def _error(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stream's error has its status beside its sentence, which lies deeper."""
    error = as_object(body.get("error"))
    content = error.get("content")
    if not content:
        return find_error(body)
    sentence = as_text(content) or as_text(as_object(content).get("error"))
    return {"message": sentence, "status_code": error.get("status_code")}


def _usage(output: Mapping[str, Any]) -> Usage | None:
    given, answered = as_count(output.get("num_prompt_tokens")), as_count(output.get("num_completion_tokens"))
    if given is None and answered is None:
        return None
    return Usage(given, answered, raw={name: value for name, value in output.items() if name.startswith("num_")})


def _logprobs(tokens: list[dict[str, Any]]) -> tuple[TokenLogprob, ...] | None:
    return parse_logprobs({"content": [{**token, "logprob": token.get("log_prob")} for token in tokens]}) if tokens else None


class LlmEngineEvents(StreamReader):
    """A streamed answer: a token an event."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._usage: Usage | None = None
        self._request: Any = None

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        if is_error(chunk):
            self._called_error(chunk)
        self._request = chunk.get("request_id") or self._request
        output = as_object(chunk.get("output"))
        token = output.get("token")
        logprobs = _logprobs([token]) if isinstance(token, dict) else None
        if delta := self._added(0, size, text=as_text(output.get("text")), logprobs=logprobs):
            deltas.append(delta)
        self._usage = _usage(output) or self._usage
        if output.get("finished") is True:
            self._growing(0).finish = UNKNOWN_FINISH

    def _called_error(self, chunk: dict[str, Any]) -> NoReturn:
        raise refusal(self._origin, None, self._headers, _error(chunk), request=chunk.get("request_id"))

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, {"id": self._request}, choices, self._usage)
