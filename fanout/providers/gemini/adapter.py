"""Google's generateContent format, as the Gemini API serves it.

Quirks (evidence: recorded traffic, google-genai 3.3.0, ai.google.dev):
- Names are camelCase; the model stands in the path; system messages stand outside the conversation.
- A stream is server-sent events only with `alt=sse`, ends without a word, and says its usage in nearly every event.
- An error within a stream may be bare JSON between the events, or a list of one object.
- A blocked prompt is an answer without candidates; content and parts of a candidate may be missing; zeros are left out.
- `candidatesTokenCount` does not count thoughts; `promptTokenCount` counts what came from the cache.
- A wrong key is a 400; no `Retry-After`, but google.rpc.RetryInfo ("46s"); a 429 with `limit: 0` never passes.
- Several candidates cannot be streamed from several models, so they are asked for whole; 3 and newer give only one.
- Penalties are refused by 2.5 and newer, on Vertex by 3 and newer.
- No value of `topK` turns it off; `seed` is an int32.

Source: https://ai.google.dev/api/generate-content for every wire field.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump, parse
from fanout.core.schema import Call, Completion, Failure, Fitted, ImagePart, Message, OtherPart, Query, Target, TextPart
from fanout.providers.gemini.candidates import OWN_ID, CandidateEvents, answered, refused
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.messages import (
    SYSTEM_ROLES,
    list_messages,
    list_system_texts,
    parse_data_url,
    refuse_part,
    report_left_out,
    to_text,
)
from fanout.providers.mapping.tools import (
    FIELDS,
    FORMAT,
    Toolbox,
    ToolCall,
    WrittenFields,
    convert_response_format,
    convert_tools,
    parse_tool_calls,
    require_call_id,
)
from fanout.providers.parameter_tables import GEMINI_FAMILIES, find_gemini_family
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import NativeProvider, as_object, as_text

VERSION = "v1beta"
BESIDE_CONFIG = ("tools", "toolConfig")
"""Fields of the request itself; every other parameter belongs to `generationConfig`."""
ROLES = {"assistant": "model"}


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Gemini:
    """The provider of one row; see `providers.create`."""
    return Gemini(settings, session)


class Gemini(NativeProvider):
    """A host that speaks Google's format at `/models/{model}:generateContent` below its base address."""

    key_header = "x-goog-api-key"
    on_vertex: ClassVar[bool] = False

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self.build_url("/models")  # a wrong address is told at start
        row = settings.row.parameters
        self._accepted = {family: accept(table, row, FIELDS | {FORMAT}) for family, table in GEMINI_FAMILIES.items()}
        self._address = lru_cache(maxsize=1024)(_address)

    def fit(self, target: Target, query: Query) -> Fitted:
        family = find_gemini_family(target.model or "", on_vertex=self.on_vertex)
        fitted = convert_response_format(fit(query, self._accepted[family]), _written_format)
        return report_left_out(convert_tools(fitted, _written_tools), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        base = self.base()
        if base is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        origin, sent = self._origin, call.fitted.sent
        messages = list_messages(origin, call.query)
        fields: dict[str, Any] = {"contents": _contents(origin, messages)}
        if system := list_system_texts(origin, messages):
            fields["systemInstruction"] = {"parts": [{"text": said} for said in system]}
        if config := {name: value for name, value in sent.items() if name not in BESIDE_CONFIG}:
            fields["generationConfig"] = config
        fields.update((name, sent[name]) for name in BESIDE_CONFIG if name in sent)
        in_pieces = stream and sent.get("candidateCount", 1) == 1
        return HttpRequest(self._address(base, call.target.model or "", in_pieces), self.build_headers(call), dump(fields))

    def base(self) -> str | None:
        """What comes before `/models/…`; `None` while it is not known."""
        return None if self.settings.base_url is None else self.settings.base_url + self.build_prefix(VERSION)

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        return answered(origin, headers, body)

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        return refused(origin, status, headers, body)

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return CandidateEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def _address(base: str, model: str, in_pieces: bool) -> URL:
    """Where a model is asked. Its name is quoted whole: it comes from the caller, and must not lead elsewhere."""
    tuned, _, name = model.rpartition("/")
    folder = "tunedModels" if tuned == "tunedModels" else "models"
    name = quote(name if tuned in ("tunedModels", "models") else model, safe="")
    method = "streamGenerateContent?alt=sse" if in_pieces else "generateContent"
    return URL(f"{base}/{folder}/{name}:{method}", encoded=True)


def _written_format(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Source: https://ai.google.dev/gemini-api/docs/structured-output"""
    return {"responseMimeType": "application/json", **({"responseJsonSchema": schema} if schema else {})}


def _written_tools(box: Toolbox) -> WrittenFields:
    declared = [
        {
            "name": function.name,
            **({} if function.description is None else {"description": function.description}),
            "parametersJsonSchema": function.parameters,
        }
        for function in box.functions
    ]
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    if box.choice:
        config: dict[str, Any] = {"mode": "NONE" if box.choice == "none" else "ANY"}
        if box.name is not None:
            config["allowedFunctionNames"] = [box.name]
        fields["toolConfig"] = {"functionCallingConfig": config}
    return fields, () if box.parallel else ("parallel_tool_calls",)


def _contents(origin: Origin, messages: Sequence[Message]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    made: dict[str, ToolCall] = {}
    for message in messages:
        if message.role in SYSTEM_ROLES:
            continue
        if message.role == "tool":
            if not results:
                written.append({"role": "user", "parts": results})  # as many results in one turn as there were calls
            results.append(_result(origin, message, made))
            continue
        results = []
        content = message.content
        parts = [{"text": content}] if isinstance(content, str) else [_part(origin, part) for part in content or ()]
        if calls := parse_tool_calls(origin, message):
            made.update((call.id, call) for call in calls)
            parts = [*(part for part in parts if part != {"text": ""}), *map(_use, calls)]
        written.append({"role": ROLES.get(message.role, message.role), "parts": parts})
    return written


def _part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, OtherPart):
        refuse_part(origin, part)
    if data := parse_data_url(origin, part.url):
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    kind, _ = mimetypes.guess_type(urlsplit(part.url).path)  # as google-genai's `Part.from_uri` does
    return {"fileData": {"fileUri": part.url, **({"mimeType": kind} if kind else {})}}


def _use(call: ToolCall) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments, **_id(call.id)}}
    google = as_object(as_object(call.raw.get("extra_content")).get("google"))
    if signature := as_text(google.get("thought_signature")):
        part["thoughtSignature"] = signature
    return part


def _result(origin: Origin, message: Message, made: Mapping[str, ToolCall]) -> dict[str, Any]:
    """A tool's answer; it names the function, which OpenAI's shape says only at the call."""
    call_id, said = require_call_id(origin, message), to_text(origin, message.content)
    try:
        value = parse(said.encode(errors="replace"))
    except ValueError:
        value = said
    name = made[call_id].name if call_id in made else as_text(message.extra.get("name"))
    response = value if isinstance(value, dict) else {"output": value}
    return {"functionResponse": {"name": name, "response": response, **_id(call_id)}}


def _id(call_id: str) -> dict[str, str]:
    return {} if not call_id or call_id.startswith(OWN_ID) else {"id": call_id}
