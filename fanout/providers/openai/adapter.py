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

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, dump, dump_in_steps, dump_text_in_steps
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.providers.mapping.json_fields import as_object
from fanout.providers.openai.chunks import ChunkReader
from fanout.providers.parameter_tables import OPENAI_FAMILIES, OPENAI_TEXT, find_openai_family
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import MAX_INLINE_ENCODE_CHARACTERS, HttpRequest, WrittenBody, share_texts

OWN_HOSTS = (".api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
"""Where models named like OpenAI's are OpenAI's."""
LONG_PROMPT_CHARACTERS = 4096
CHAT_PATH, TEXT_PATH = "/chat/completions", "/completions"


class OpenAi(JsonProvider):
    """A host that speaks OpenAI's format at `/chat/completions` and `/completions` below its base address."""

    reader_class = ChunkReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._urls = {path: self.build_url(path) for path in (CHAT_PATH, TEXT_PATH, "/embeddings")}
        row = settings.row.parameters
        self._reports_usage = "stream_options" not in row.drop
        self._text = accept(OPENAI_TEXT, row, passthrough=None)
        self._chat = {family: accept(table, row, passthrough=None) for family, table in OPENAI_FAMILIES.items()}
        base = self._urls[CHAT_PATH]
        host = base.host if base else None
        self._is_openai = f".{host}".endswith(OWN_HOSTS)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        if query.messages is None:
            return fit(query, self._text)
        effort = query.passthrough.get("reasoning_effort")
        # Another host may call its model anything: only OpenAI's own names mean a family.
        family = find_openai_family(target.model or "", effort) if self._is_openai else "plain"
        return fit(query, self._chat[family])

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode a call; a long prompt is written once for all the models that get it."""
        fields: JsonObject = {**call.fitted.sent, "model": call.target.model}
        fields["stream"] = stream  # some gateways stream unless it is false
        options = fields.pop("stream_options") if "stream_options" in fields else None
        # Without it a stream reports no tokens; hosts that refuse it drop it in their row.
        if stream and self._reports_usage:
            fields["stream_options"] = {**as_object(options), "include_usage": True}
        url = self.find_url(call, TEXT_PATH if call.query.messages is None else CHAT_PATH)
        return HttpRequest(url, self.build_headers(call), PROMPTS.write_body(fields, call))

    def find_url(self, call: Call, path: str) -> URL:
        """Return the address of an endpoint for a call's model."""
        return self.require_url(self._urls[path])


class PromptCache:
    """The part of a body that is the same for every model: written anew for short prompts, kept for a long one.

    `to_json` takes 1 µs for a sentence, 8 µs for 10,000 characters, 140 µs for 100,000 (2026-11-20), for each model again.
    """

    def __init__(self) -> None:
        self._last: tuple[Query, list[bytes]] | None = None
        self._short: tuple[Query, tuple[str, object]] | None = None
        self._lock = Lock()

    def write_body(self, fields: JsonObject, call: Call) -> WrittenBody:
        """Return the JSON object of `fields` and the messages or prompt of a call."""
        query = call.query
        size = measure_query(query).whole
        if size < LONG_PROMPT_CHARACTERS:
            short = self._short
            if short is None or short[0] is not query:
                self._short = short = (query, convert_prompt(query))
            name, value = short[1]
            fields[name] = value
            return dump(fields)
        if size <= MAX_INLINE_ENCODE_CHARACTERS:
            return b"".join((dump(fields)[:-1], *self._write_prompt(query, dump_text_in_steps)))
        with self._lock:  # one of the threads writes it for all that wait for it
            prompt = self._write_prompt(query, share_texts(call))
        *before, end = dump_in_steps(fields)
        return [*before, end[:-1], *prompt]

    def _write_prompt(self, query: Query, dump_text: Callable[[str], list[bytes]]) -> list[bytes]:
        last = self._last
        if last is None or not _is_same(last[0], query):
            name, value = convert_prompt(query)
            # One long prompt is kept: the models of one request follow each other.
            self._last = last = (query, [b',"%b":' % name.encode(), *dump_in_steps(value, dump_text), b"}"])
        return last[1]


PROMPTS = PromptCache()


def convert_prompt(query: Query) -> tuple[str, object]:
    """Return the name and the value of the field that holds a query's prompt or messages."""
    if query.messages is None:
        return "prompt", query.prompt if query.prompt_tokens is None else query.prompt_tokens
    return "messages", [_convert_message(message) for message in query.messages]


def _convert_message(message: Message) -> JsonObject:
    content = message.content
    converted = [_convert_part(part) for part in content] if isinstance(content, tuple) else content
    return {**message.extra, "role": message.role, "content": converted}


def _convert_part(part: TextPart | ImagePart | OtherPart) -> Mapping[str, Any]:
    if isinstance(part, TextPart):
        return {**part.extra, "type": "text", "text": part.text}
    if isinstance(part, OtherPart):
        return part.raw
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {**part.extra, "type": "image_url", "image_url": image}


def _is_same(one: Query, other: Query) -> bool:
    """Return whether both hold the very same prompt; by identity, for comparing long texts would cost what is to be saved."""
    if one.messages is None or other.messages is None:
        same = one.prompt is other.prompt and one.prompt_tokens is other.prompt_tokens
        return same and one.messages is other.messages
    return len(one.messages) == len(other.messages) and all(
        mine is yours or (mine.content is yours.content and mine.role == yours.role and not mine.extra and not yours.extra)
        for mine, yours in zip(one.messages, other.messages, strict=True)
    )
