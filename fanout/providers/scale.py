"""Scale GenAI Platform's own text format: `/v4/completions`. (`/v5` speaks OpenAI's: preset `scale-sgp`.)

Quirks (evidence: scale-gp 0.1.0a62, scale-egp 1.1.15):
- The key goes into `x-api-key`; an account is chosen by `x-selected-account-id`, which the row's `headers` may hold.
- Parameters stand in `model_parameters`, partly in camelCase (`topP`); Scale itself takes 0.2 where no temperature is sent.
- An answer is one text, without id or model; `finish_reason` is a free word and may be null.
- A stream is of unnamed events and has no `[DONE]`: it ends with its body, so only a finish reason or the usage, which comes
  last, tells a whole answer from a cut one. An error in it is `event: error` with `detail`.
- Errors are FastAPI's: `{"detail": …}`, a sentence, a list, or an object with a `detail` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, Fitted, Query, Target
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, is_error, parse_error_body, refusal
from fanout.providers.mapping.messages import refuse, to_text
from fanout.providers.mapping.openai_answers import FINISH, build_completion
from fanout.providers.mapping.stream_reader import UNKNOWN_FINISH, StreamReader
from fanout.providers.parameter_tables import SCALE_V4
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import NativeProvider, as_count, as_object, as_text
from fanout.providers.transport.sse import Event

PASSTHROUGH = frozenset({"reasoning_effort"})


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Scale:
    """The provider of one row; see `providers.create`."""
    return Scale(settings, session)


class Scale(NativeProvider):
    """A host that speaks Scale's format at `/v4/completions` below its base address."""

    key_header = "x-api-key"

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._url = self.build_url(f"{self.build_prefix('v4')}/completions")
        self._accepted = accept(SCALE_V4, settings.row.parameters, PASSTHROUGH)

    def fit(self, target: Target, query: Query) -> Fitted:
        return fit(query, self._accepted)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        if self._url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        fields: dict[str, Any] = {"model": call.target.model, "prompt": prompt_of(self._origin, call.query), "stream": stream}
        if call.fitted.sent:
            fields["model_parameters"] = call.fitted.sent
        return HttpRequest(self._url, self.build_headers(call), dump(fields))

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        if "completion" not in body and (is_error(body) or body.get("detail")):
            raise self.parse_refusal(origin, None, headers, body)
        said = body.get("completion")
        if not isinstance(said, dict):
            raise origin.malformed("sent an answer without a completion", "no_choices")
        word = as_text(said.get("finish_reason"))
        choice = Choice(Answer(as_text(said.get("text"))), FINISH.get(word), _native(word))
        return build_completion(origin, headers, {}, (choice,), _usage(body.get("token_usage")))

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        return refusal(origin, status, headers, find_error(body))

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return ScaleEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def prompt_of(origin: Origin, query: Query) -> str:
    """The prompt, or a conversation that is no more than one.

    Raises:
        ProviderError: it is more. No template is invented for it.
    """
    if query.prompt_tokens is not None:
        refuse(origin, "takes no token ids; send the prompt as text", "prompt")
    if query.messages is None:
        return query.prompt or ""
    if len(query.messages) > 1 or query.messages[0].role != "user":
        refuse(origin, "completes text; it takes no conversation")
    return to_text(origin, query.messages[0].content)


def _native(word: str) -> str | None:
    return word[:100] if word and FINISH.get(word) != word else None


def _usage(raw: Any) -> Usage | None:
    figures = as_object(raw)
    given, answered = as_count(figures.get("prompt")), as_count(figures.get("completion"))
    return None if given is None and answered is None else Usage(given, answered, raw=figures)


class ScaleEvents(StreamReader):
    """A streamed answer: packets of text in, deltas out."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._usage: Usage | None = None

    def _read(self, events: list[Event], deltas: list[Delta]) -> None:
        for name, data in events:
            if name == "error":
                raise refusal(self._origin, None, self._headers, parse_error_body(data))
            super()._read([(name, data)], deltas)

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        if "completion" not in chunk and (is_error(chunk) or chunk.get("detail")):
            raise refusal(self._origin, None, self._headers, find_error(chunk))
        said = as_object(chunk.get("completion"))
        if packet := as_text(said.get("text")):
            deltas.append(self._said(0, packet))
        word = as_text(said.get("finish_reason"))
        usage = _usage(chunk.get("token_usage"))
        self._usage = usage or self._usage
        if word or usage:
            growing = self._growing(0)
            if growing.finish is None or word:
                growing.finish, growing.native = FINISH.get(word) or UNKNOWN_FINISH, _native(word)

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, {}, choices, self._usage)
