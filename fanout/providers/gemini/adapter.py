"""Google's generateContent format, as the Gemini API serves it.

Quirks (evidence: recorded traffic, google-genai 3.3.0, ai.google.dev):
- Names are camelCase; the model stands in the path; system messages stand outside the conversation.
- A stream is server-sent events only with `alt=sse`, ends without a mark, and repeats its usage in nearly every event.
- An error within a stream may be bare JSON between the events, or a list of one object.
- A blocked prompt is an answer without candidates; content and parts of a candidate may be missing; zeros are left out.
- `candidatesTokenCount` does not count thoughts; `promptTokenCount` counts what came from the cache.
- A wrong key is a 400; no `Retry-After`, but google.rpc.RetryInfo ("46s"); a 429 with `limit: 0` never passes.
- Several candidates cannot be streamed from several models, so they are requested whole; 3 and newer give only one.
- Penalties are refused by 2.5 and newer, on Vertex by 3 and newer.
- No value of `topK` turns it off; `seed` is an int32.

Source: https://ai.google.dev/api/generate-content for every wire field.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, parse
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.providers.gemini.candidates import MADE_UP_ID, CandidateReader
from fanout.providers.mapping.data_urls import split_data_url
from fanout.providers.mapping.failures import Origin, configuration_error
from fanout.providers.mapping.json_fields import as_object, as_text
from fanout.providers.mapping.messages import part_error, report_left_out, split_system
from fanout.providers.mapping.tools import (
    RESPONSE_FORMAT,
    TOOL_FIELDS,
    Toolbox,
    ToolCall,
    ToolFields,
    convert_response_format,
    convert_tools,
    parse_tool_calls,
    parse_tool_result,
)
from fanout.providers.parameter_tables import GEMINI_FAMILIES, find_gemini_family
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

VERSION = "v1beta"
BESIDE_CONFIG = ("tools", "toolConfig")
"""Fields of the request itself; every other parameter belongs to `generationConfig`."""
ROLES = {"assistant": "model"}


class Gemini(JsonProvider):
    """A host that speaks Google's format at `/models/{model}:generateContent` below its base address."""

    key_header = "x-goog-api-key"
    key_prefix = ""
    reader_class = CandidateReader
    is_vertex: ClassVar[bool] = False

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self.build_url("/models")  # so that a wrong address fails at start
        row = settings.row.parameters
        passed_on = TOOL_FIELDS | {RESPONSE_FORMAT}
        self._accepted = {family: accept(table, row, passed_on) for family, table in GEMINI_FAMILIES.items()}
        self._build_model_url = lru_cache(maxsize=1024)(build_model_url)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        family = find_gemini_family(target.model or "", on_vertex=self.is_vertex)
        fitted = convert_response_format(fit(query, self._accepted[family]), _convert_schema)
        return report_left_out(convert_tools(fitted, _convert_toolbox), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        # Vertex learns its project with its first token, so the address is built for each call
        base, sent = self.require_base(), call.fitted.sent
        # Several models refuse to stream more than one candidate.
        is_streamed = stream and sent.get("candidateCount", 1) == 1
        method = "streamGenerateContent?alt=sse" if is_streamed else "generateContent"
        url = self._build_model_url(base, call.target.model or "", method)
        return HttpRequest(url, self.build_headers(call), write_body(self.build_body(call), call))

    def build_body(self, call: Call) -> JsonObject:
        """Return the body of a request for content."""
        origin, sent = self._origin, call.fitted.sent
        system, messages = split_system(origin, call.query)
        fields: JsonObject = {"contents": _convert_messages(origin, messages)}
        if system:  # a system role inside `contents` is refused
            fields["systemInstruction"] = {"parts": [{"text": part.text} for part in system]}
        if config := {name: value for name, value in sent.items() if name not in BESIDE_CONFIG}:
            fields["generationConfig"] = config
        fields.update((name, sent[name]) for name in BESIDE_CONFIG if name in sent)
        return fields

    def require_base(self) -> str:
        """Return the address before `/models/…`.

        Raises:
            ProviderError: `not_configured`: it is not known.
        """
        base = self.find_base()
        if base is None:
            raise configuration_error(f"`{self.name}` has no address")
        return base

    def find_base(self) -> str | None:
        """Return the address before `/models/…`; `None` while it is not known."""
        return None if self.settings.base_url is None else self.settings.base_url + self.build_prefix(VERSION)


def build_model_url(base: str, model: str, method: str) -> URL:
    """Return the address of what a model can do. Its name is quoted whole: it must not lead elsewhere."""
    tuned, _, name = model.rpartition("/")
    folder = "tunedModels" if tuned == "tunedModels" else "models"
    # A `/` or `?` in a name would change the address.
    name = quote(name if tuned in ("tunedModels", "models") else model, safe="")
    return URL(f"{base}/{folder}/{name}:{method}", encoded=True)


def _convert_schema(schema: JsonObject | None) -> JsonObject:
    """Source: https://ai.google.dev/gemini-api/docs/structured-output."""
    return {"responseMimeType": "application/json", **({"responseJsonSchema": schema} if schema else {})}


def _convert_toolbox(toolbox: Toolbox) -> ToolFields:
    declarations = [function.describe(parametersJsonSchema=function.parameters) for function in toolbox.functions]
    fields: JsonObject = {"tools": [{"functionDeclarations": declarations}]}
    if toolbox.choice:
        config: JsonObject = {"mode": "NONE" if toolbox.choice == "none" else "ANY"}
        if toolbox.name is not None:
            config["allowedFunctionNames"] = [toolbox.name]
        fields["toolConfig"] = {"functionCallingConfig": config}
    return ToolFields(fields, () if toolbox.is_parallel else ("parallel_tool_calls",))


def _convert_messages(origin: Origin, messages: Sequence[Message]) -> list[JsonObject]:
    converted: list[JsonObject] = []
    results: list[JsonObject] = []
    calls_by_id: dict[str, ToolCall] = {}
    for message in messages:
        if message.role == "tool":
            if not results:
                converted.append({"role": "user", "parts": results})  # as many results in one turn as there were calls
            results.append(_convert_result(origin, message, calls_by_id))
            continue
        results = []
        content = message.content
        parts = [{"text": content}] if isinstance(content, str) else [_convert_part(origin, part) for part in content or ()]
        if calls := parse_tool_calls(origin, message):
            calls_by_id.update((call.id, call) for call in calls)
            parts = [*(part for part in parts if part != {"text": ""}), *map(_convert_call, calls)]
        converted.append({"role": ROLES.get(message.role, message.role), "parts": parts})
    return converted


def _convert_part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> JsonObject:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, OtherPart):
        raise part_error(origin, part)
    if image := split_data_url(part.url):
        return {"inlineData": {"mimeType": image[0], "data": image[1]}}
    media_type, _ = mimetypes.guess_type(urlsplit(part.url).path)  # as google-genai's `Part.from_uri` does
    return {"fileData": {"fileUri": part.url, **({"mimeType": media_type} if media_type else {})}}


def _convert_call(call: ToolCall) -> JsonObject:
    part: JsonObject = {"functionCall": {"name": call.name, "args": call.arguments, **_id_field(call.id)}}
    google = as_object(as_object(call.raw.get("extra_content")).get("google"))
    # Gemini 3 refuses a call of its own that comes back without its signature
    if signature := as_text(google.get("thought_signature")):
        part["thoughtSignature"] = signature
    return part


def _convert_result(origin: Origin, message: Message, calls_by_id: Mapping[str, ToolCall]) -> JsonObject:
    """Convert a tool's answer; it names the function, which OpenAI's shape names only at the call."""
    call_id, text = parse_tool_result(origin, message)
    try:
        # `response` must be an object: a JSON object is passed on as one
        value = parse(text.encode(errors="replace"))
    except ValueError:
        value = text
    name = calls_by_id[call_id].name if call_id in calls_by_id else as_text(message.extra.get("name"))
    response = value if isinstance(value, dict) else {"output": value}
    return {"functionResponse": {"name": name, "response": response, **_id_field(call_id)}}


def _id_field(call_id: str) -> dict[str, str]:
    return {} if not call_id or call_id.startswith(MADE_UP_ID) else {"id": call_id}
