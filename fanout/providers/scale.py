"""Scale GenAI Platform's own text format, `/v4/completions`; `/v5` speaks OpenAI's (preset `scale-sgp`).

Quirks (evidence: scale-gp 0.1.0a62, scale-egp 1.1.15):
- The key goes into `x-api-key`; an account is chosen by `x-selected-account-id`, which the row's `headers` may hold.
- Parameters stand in `model_parameters`, partly in camelCase (`topP`); Scale itself takes 0.2 where no temperature is sent.
- An answer is one text, without id or model; `finish_reason` is a free word and may be null.
- A stream is of unnamed events and has no `[DONE]`: it ends with its body, so only a finish reason or the usage, which comes
  last, distinguishes a whole answer from a cut one. An error in it is `event: error` with `detail`.
- Errors are FastAPI's: `{"detail": …}`, a sentence, a list, or an object with a `detail` of its own.
"""

from __future__ import annotations

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Call, Choice, Completion, FittedParameters, Query, Target
from fanout.core.usage import Usage
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import build_completion, build_usage, read_finish
from fanout.providers.mapping.error_objects import is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_text
from fanout.providers.mapping.messages import get_prompt, report_left_out, to_text
from fanout.providers.mapping.openai_answers import FINISH
from fanout.providers.parameter_tables import SCALE_V4
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

PASSTHROUGH = frozenset({"reasoning_effort"})


class PacketReader(AnswerReader):
    """A streamed answer: packets of text."""

    _usage: Usage | None = None

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if _is_error(body):
            raise PacketReader.parse_error(origin, body)
        completion = body.get("completion")
        if not isinstance(completion, dict):
            raise origin.no_answer_error("a completion", body)
        choice = Choice(Answer(as_text(completion.get("text"))), *read_finish(completion.get("finish_reason"), FINISH))
        return build_completion(origin, {}, (choice,), _parse_usage(body.get("token_usage")))

    def _read_event(self, event: JsonObject, size: int) -> None:
        if _is_error(event):
            raise self.parse_error(self._origin, event)
        packet = as_object(event.get("completion"))
        if text := as_text(packet.get("text")):
            self._add_text(text)
        word = as_text(packet.get("finish_reason"))
        usage = _parse_usage(event.get("token_usage"))
        self._usage = usage or self._usage
        # Either ends the answer: nothing else marks a whole stream.
        if word or (usage and not self._choice().is_finished):
            self._finish(read_finish(word, FINISH))

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, {}, choices, self._usage)


class Scale(JsonProvider):
    """A host that speaks Scale's format at `/v4/completions` below its base address."""

    key_header = "x-api-key"
    key_prefix = ""
    reader_class = PacketReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._url = self.build_url(f"{self.build_prefix('v4')}/completions")
        self._accepted = accept(SCALE_V4, settings.row.parameters, PASSTHROUGH)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return report_left_out(fit(query, self._accepted), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        url, prompt = self.require_url(self._url), flatten_to_prompt(self._origin, call.query)
        fields: JsonObject = {"model": call.target.model, "prompt": prompt, "stream": stream}
        if call.fitted.sent:
            fields["model_parameters"] = call.fitted.sent
        return HttpRequest(url, self.build_headers(call), write_body(fields, call))


def flatten_to_prompt(origin: Origin, query: Query) -> str:
    """Return the prompt, or a conversation that is no more than one.

    Raises:
        ProviderError: it is more. No template is invented for it.
    """
    if query.messages is None:
        return get_prompt(origin, query)
    # One user message is a prompt; more would need a template of ours.
    if len(query.messages) > 1 or query.messages[0].role != "user":
        raise origin.request_error("completes text; it takes no conversation")
    return to_text(origin, query.messages[0].content)


def _is_error(body: JsonObject) -> bool:
    # An answer may quote "detail" or "error" in fields of its own.
    return "completion" not in body and bool(is_error(body) or body.get("detail"))


def _parse_usage(raw: object) -> Usage | None:
    figures = as_object(raw)
    return build_usage(as_count(figures.get("prompt")), as_count(figures.get("completion")), raw=figures)
