"""OpenAI's wire format, chat and text, which most hosts speak.

Quirks, of OpenAI itself and of the hosts that speak its format (evidence: recorded traffic, the vendors' own clients):
- Azure's first chunk has no choices; a prompt its filter blocks is a 400 with code `content_filter`.
- OpenRouter answers 200 with an `error`, also inside an ordinary chunk; its codes are numbers; it sends comments for minutes.
- Groq ends a failed stream with `event: error` and no `[DONE]`; transformers never sends `[DONE]`.
- Mistral's content may be a list of parts; it refuses `stream_options` (drop it in the row's `parameters`).
- llama.cpp's first chunk has `content: null`; its text answers carry chat's logprobs.
- DeepSeek and Z.ai put reasoning in `reasoning_content`, Groq and OpenRouter in `reasoning`.
- Gemini's OpenAI path wraps errors in a list and counts thinking only in `total_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump, parse
from fanout.core.schema import Call, Completion, Failure, Fitted, ImagePart, Message, OtherPart, Query, Target, TextPart
from fanout.providers.mapping.failures import find_error, is_error, parse_error_body, refusal
from fanout.providers.mapping.openai_answers import build_completion, check_choice, parse_choice, parse_usage
from fanout.providers.openai.stream import OpenAiEvents
from fanout.providers.parameter_tables import OPENAI_FAMILIES, OPENAI_TEXT, find_openai_family
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.http import AnswerReader, HttpProvider, HttpRequest, count_characters

OWN_HOSTS = (".api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
"""Where models named like OpenAI's are OpenAI's."""
LONG_PROMPT_CHARACTERS = 4096


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> OpenAi:
    """The provider of one row; see `providers.create`."""
    return OpenAi(settings, session)


class OpenAi(HttpProvider):
    """A host that speaks OpenAI's format at `/chat/completions` and `/completions` below its base address."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._chat_url, self._text_url = self.build_url("/chat/completions"), self.build_url("/completions")
        self._headers = self.build_common_headers()
        if (key := self.read_configured_key()) and hdrs.AUTHORIZATION not in self._headers:
            self._headers[hdrs.AUTHORIZATION] = f"Bearer {key}"
        row = settings.row.parameters
        self._reports_usage = "stream_options" not in row.drop
        self._text = accept(OPENAI_TEXT, row, passthrough=None)
        self._chat = {family: accept(table, row, passthrough=None) for family, table in OPENAI_FAMILIES.items()}
        host = self._chat_url.host if self._chat_url else None
        self._is_openai = f".{host}".endswith(OWN_HOSTS)

    def fit(self, target: Target, query: Query) -> Fitted:
        if query.messages is None:
            return fit(query, self._text)
        effort = query.passthrough.get("reasoning_effort")
        family = find_openai_family(target.model or "", effort) if self._is_openai else "plain"
        return fit(query, self._chat[family])

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """The request; its body is written once for all models that are asked the same long prompt."""
        query = call.query
        fields: dict[str, Any] = {**call.fitted.sent, "model": call.target.model}
        options = fields.pop("stream_options", None)
        if stream:
            fields["stream"] = True
            if self._reports_usage:
                fields["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        url = self._text_url if query.messages is None else self._chat_url
        if url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        return HttpRequest(url, self._headers_for(call), PROMPTS.body(fields, query))

    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        origin = self.origin(call)
        if not 200 <= status < 300:
            raise refusal(origin, status, headers, parse_error_body(body))
        try:
            answer = parse(body)
        except ValueError:
            raise origin.malformed("sent an answer that is not JSON", "invalid_json") from None
        if is_error(answer):
            raise refusal(origin, None, headers, find_error(answer))
        if not isinstance(answer, dict):
            raise origin.malformed("sent JSON that is no answer", "unexpected_shape")
        choices = answer.get("choices")
        raw = [item for item in choices if isinstance(item, dict)] if isinstance(choices, list) else []
        for item in raw:
            check_choice(origin, headers, item)
        if len(raw) > 1:
            raw.sort(key=lambda item: index if isinstance(index := item.get("index"), int) else 0)
        return build_completion(origin, headers, answer, tuple(map(parse_choice, raw)), parse_usage(answer.get("usage")))

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return OpenAiEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)

    def _headers_for(self, call: Call) -> CIMultiDict[str]:
        key = self.read_caller_key(call)
        if key is None:
            return self._headers
        headers = self._headers.copy()
        headers[hdrs.AUTHORIZATION] = f"Bearer {key}"
        return headers


class _Prompts:
    """The body's part that is the same for every model asked the same: written anew for short prompts, kept for a long one.

    `to_json` takes 1 µs for a sentence, 8 µs for 10,000 characters, 140 µs for 100,000 (2026-11-20), for each model again.
    """

    def __init__(self) -> None:
        self._last: tuple[Query, bytes] | None = None

    def body(self, fields: dict[str, Any], query: Query) -> bytes:
        """The JSON object of `fields` and the query's messages or prompt."""
        if count_characters(query) < LONG_PROMPT_CHARACTERS:
            name, value = _asked(query)
            fields[name] = value
            return dump(fields)
        last = self._last
        if last is None or not _alike(last[0], query):
            name, value = _asked(query)
            self._last = last = (query, b',"%b":%b}' % (name.encode(), dump(value)))
        return dump(fields)[:-1] + last[1]


PROMPTS = _Prompts()


def _asked(query: Query) -> tuple[str, Any]:
    if query.messages is None:
        return "prompt", query.prompt if query.prompt_tokens is None else query.prompt_tokens
    return "messages", [_message(message) for message in query.messages]


def _message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if isinstance(content, tuple):
        content = [_part(part) for part in content]
    return {**message.extra, "role": message.role, "content": content}


def _part(part: TextPart | ImagePart | OtherPart) -> Mapping[str, Any]:
    if isinstance(part, TextPart):
        return {**part.extra, "type": "text", "text": part.text}
    if isinstance(part, OtherPart):
        return part.raw
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {**part.extra, "type": "image_url", "image_url": image}


def _alike(one: Query, other: Query) -> bool:
    """Whether both ask the very same; by identity, for comparing long texts would cost what is to be saved."""
    if one.messages is None or other.messages is None:
        same = one.prompt is other.prompt and one.prompt_tokens is other.prompt_tokens
        return same and one.messages is other.messages
    return len(one.messages) == len(other.messages) and all(
        mine is yours or (mine.content is yours.content and mine.role == yours.role and not mine.extra and not yours.extra)
        for mine, yours in zip(one.messages, other.messages, strict=True)
    )
