"""AWS Bedrock: `Converse` and `ConverseStream`, one format for the models of all vendors there.

Quirks (evidence: botocore's service model, recorded traffic, AWS's documentation):
- A request bears a Bedrock API key (`AWS_BEARER_TOKEN_BEDROCK`) as any other API, or is signed
  (SigV4, service `bedrock`; by botocore, which the extra `bedrock` brings).
- A model's id holds `:`, an inference profile's `/` too: quoted in the path (`%3A`), and sent exactly as it was signed.
- The region is part of the address; `{region}` in the row's `base_url` is filled from the row's header `aws-region` (which is
  not sent), else from AWS_REGION or AWS_DEFAULT_REGION.
- Images are bytes: an address is fetched first. Roles must take turns, and a text must not be empty.
- `top_k`, `seed` and the like are each model's own: a row's `rename` puts them into `additionalModelRequestFields`.
- A stream is binary frames, and breaks by a frame of type `exception`; a text block has no `contentBlockStart`; `metadata` is
  the last frame, behind `messageStop`. `p` in a delta is padding.
- The kind of an error is in the header `x-amzn-errortype`; a 424 is the model's own failure and not worth a second try.
- `inputTokens` leaves the cached ones out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject, dump, parse
from fanout.core.schema import Call, Choice, Completion, FailureKind, FittedParameters, Query, Target
from fanout.core.usage import Usage
from fanout.providers.bedrock import converse
from fanout.providers.bedrock.event_stream import FrameDecoder
from fanout.providers.bedrock.signing import Signer
from fanout.providers.mapping.completions import build_completion
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin, configuration_error
from fanout.providers.mapping.json_fields import as_object, as_text
from fanout.providers.mapping.messages import report_left_out
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import TOOL_FIELDS, convert_tools
from fanout.providers.parameter_tables import CONVERSE_FAMILIES, find_converse_family
from fanout.providers.parameters import accept, drop_conflicting, fit
from fanout.providers.transport.adapter_headers import take_header
from fanout.providers.transport.http import HttpRequest
from fanout.providers.transport.json_provider import InliningProvider

SERVICE = "bedrock"
BASE_URL = "https://bedrock-runtime.{region}.amazonaws.com"
REGION = re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
REGION_HEADER = "aws-region"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
ERROR_TYPE = istr("x-amzn-errortype")

# Source: the `httpStatusCode` of each exception in botocore 1.44.5, `bedrock-runtime`.
STATUSES: Mapping[str, int] = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""What stands for HTTP's status where an error comes inside a stream."""
KINDS: Mapping[str, FailureKind] = {
    "ServiceQuotaExceededException": "quota",
    "UnrecognizedClientException": "auth",
    "InvalidSignatureException": "auth",
    "ExpiredTokenException": "auth",
    "ThrottlingException": "rate_limit",
}
"""Where the type says more than its status. Source: AWS's common errors, …/APIReference/CommonErrors.html"""


class FrameReader(StreamReader):
    """A streamed answer: frames, each with an event or an exception."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._frames = FrameDecoder(origin)
        self._usage: Usage | None = None

    def _read_bytes(self, data: bytes) -> None:
        for headers, payload in self._frames.feed(data):
            self._read_frame(headers, payload)
            if self.is_ended:
                return

    def _read_frame(self, headers: Mapping[str, object], payload: bytes) -> None:
        kind = headers.get(":message-type")
        if kind == "error":
            raise _to_error(self._origin, {"message": headers.get(":error-message")}, headers.get(":error-code"))
        try:
            body = parse(payload or b"{}")
        except ValueError:
            raise self._origin.answer_error("sent a message that is not JSON", "invalid_json") from None
        if kind == "exception":
            raise _to_error(self._origin, as_object(body), headers.get(":exception-type"))
        if type(body) is not dict:
            raise self._reject(body)
        if kind == "event":
            self._read_event({**body, "event": headers.get(":event-type")}, len(payload))

    def _read_event(self, event: JsonObject, size: int) -> None:
        match event["event"]:  # kinds that are not known are of no interest
            case "contentBlockDelta" | "contentBlockStart":
                self._read_block(event, size)
            case "messageStop":
                self._finish(converse.parse_finish(self._origin, event.get("stopReason")))
            case "metadata":
                self._usage = converse.parse_usage(event.get("usage"))
                self.is_ended = bool(self._choices) and self._choice().is_finished

    def _read_block(self, event: JsonObject, size: int) -> None:
        piece = as_object(event.get("delta") or event.get("start"))
        text, use = as_text(piece.get("text")), as_object(piece.get("toolUse"))
        if text and not use:
            self._add_text(text)
            return
        calls: list[JsonObject] = []
        if use:
            fields = {"id": use["toolUseId"], "type": "function"} if as_text(use.get("toolUseId")) else {}
            function = {"name": as_text(use.get("name")), "arguments": as_text(use.get("input"))}
            calls = [{**fields, "index": event.get("contentBlockIndex"), "function": function}]
        self._add(size, text=text, reasoning=converse.read_thoughts(piece), calls=calls)

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, {}, choices, self._usage)


class Bedrock(InliningProvider):
    """One region of one AWS account; see `InliningProvider`."""

    reader_class = FrameReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        header, settings = take_header(settings, REGION_HEADER)
        region = header or next(filter(None, (os.environ.get(name, "").strip() for name in REGION_VARIABLES)), None)
        super().__init__(_fill_region(settings, region), session)
        base = self.build_url("")
        match = REGION.search(base.host or "") if base else None
        self._region = match[1] if match else region
        row, passed_on = settings.row.parameters, converse.TOP_LEVEL | TOOL_FIELDS | {converse.MODELS_OWN}
        self._accepted = {family: accept(table, row, passed_on) for family, table in CONVERSE_FAMILIES.items()}
        self._signer = Signer(self.name)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        """See `Provider.fit`."""
        family = find_converse_family(target.model or "")
        accepted = self._accepted[family]
        fitted = fit(query, accepted)
        if family == "either":
            fitted = drop_conflicting(fitted, query, accepted, "temperature", "top_p")
        return report_left_out(convert_tools(fitted, converse.convert_toolbox), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """See `HttpProvider.encode`. Unsigned; images must be data: URLs by now."""
        if self.settings.base_url is None:
            raise configuration_error(f"`{self.name}` has no region: set {' or '.join(REGION_VARIABLES)}")
        path = f"/model/{quote(call.target.model or '', safe='')}/{'converse-stream' if stream else 'converse'}"
        body = dump(converse.build_body(self._origin, call.fitted.sent, call.query))
        return HttpRequest(URL(self.settings.base_url + path, encoded=True), self.build_headers(call), body)

    def parse_answer(self, origin: Origin, body: JsonObject) -> Completion:
        """See `JsonProvider.parse_answer`."""
        return converse.parse_answer(origin, body)

    def parse_error(self, origin: Origin, body: JsonObject) -> ProviderError:
        """See `JsonProvider.parse_error`."""
        error = find_error(body) or body  # what stands between AWS and us may have OpenAI's shape
        return _to_error(origin, error, origin.headers.get(ERROR_TYPE) or error.get("__type") or error.get("code"))

    async def _encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode and sign. A missing image or credential is found here, before the call is paid for."""
        request = await super()._encode(call, stream=stream)
        if hdrs.AUTHORIZATION in request.headers:
            return request
        if self._region is None:
            raise configuration_error(f"the region of `{self.name}` is not in its address: set {' or '.join(REGION_VARIABLES)}")
        return await self._signer.sign(request, SERVICE, self._region)


create = Bedrock
"""See `providers.create`."""


def _fill_region(settings: ProviderSettings, region: str | None) -> ProviderSettings:
    """Return the settings with `{region}` filled in; without an address where no region is known."""
    base = settings.base_url or BASE_URL
    if "{region}" not in base:
        return settings
    return replace(settings, base_url=base.replace("{region}", region) if region else None)


def _to_error(origin: Origin, error: JsonObject, error_type: object) -> ProviderError:
    """Return the failure of a type, as `Name`, `Name:http://…`, `com.amazon…#Name`, or a frame's `name`."""
    word = as_text(error_type).partition(":")[0].rpartition("#")[2]
    if word.endswith("Exception"):
        word = word[:1].upper() + word[1:]
    message = as_text(error.get("message") or error.get("Message") or error.get("originalMessage"))
    origin = replace(origin, status=origin.status or STATUSES.get(word))
    return origin.upstream_error({"message": message, "code": word}, kind=KINDS.get(word))
