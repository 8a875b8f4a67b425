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
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump, parse
from fanout.core.schema import Call, Choice, Completion, Delta, FailureKind, Fitted, Query, Target
from fanout.core.usage import Usage
from fanout.providers.bedrock.converse import (
    MODELS_OWN,
    TOP_LEVEL,
    answered,
    body_of,
    parse_finish_reason,
    parse_usage,
    thought_in,
    written_tools,
)
from fanout.providers.bedrock.event_stream import FrameDecoder
from fanout.providers.bedrock.signing import Signer, not_configured
from fanout.providers.mapping.failures import Origin, find_error, refusal
from fanout.providers.mapping.images import Network
from fanout.providers.mapping.messages import report_left_out
from fanout.providers.mapping.openai_answers import build_completion
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import FIELDS, convert_tools
from fanout.providers.parameter_tables import CONVERSE_FAMILIES, find_converse_family
from fanout.providers.parameters import accept, either, fit
from fanout.providers.transport.adapter_headers import take_header
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import InliningProvider, as_object, as_text

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


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Bedrock:
    """The provider of one row; see `providers.create`."""
    return Bedrock(settings, session)


class Bedrock(InliningProvider):
    """One region of one AWS account; see `InliningProvider`."""

    key_header = hdrs.AUTHORIZATION
    key_prefix = "Bearer "

    def __init__(
        self, settings: ProviderSettings, session: aiohttp.ClientSession, *, allowed: Collection[Network] = ()
    ) -> None:
        named, settings = take_header(settings, REGION_HEADER)
        region = named or _environments_region()
        super().__init__(_at_region(settings, region), session, allowed=allowed)
        base = self.build_url("")
        found = REGION.search(base.host or "") if base else None
        self._region = found[1] if found else region
        row, passed_on = settings.row.parameters, TOP_LEVEL | FIELDS | {MODELS_OWN}
        self._accepted = {family: accept(table, row, passed_on) for family, table in CONVERSE_FAMILIES.items()}
        self._signer = Signer(self.name)

    def fit(self, target: Target, query: Query) -> Fitted:
        family = find_converse_family(target.model or "")
        accepted = self._accepted[family]
        fitted = fit(query, accepted)
        if family == "either":
            fitted = either(fitted, query, accepted, "temperature", "top_p")
        return report_left_out(convert_tools(fitted, written_tools), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """The request, unsigned; images must be data: URLs by now."""
        if self.settings.base_url is None:
            raise not_configured(f"`{self.name}` has no region: set {' or '.join(REGION_VARIABLES)}")
        path = f"/model/{quote(call.target.model or '', safe='')}/{'converse-stream' if stream else 'converse'}"
        body = dump(body_of(self._origin, call.fitted.sent, call.query))
        return HttpRequest(URL(self.settings.base_url + path, encoded=True), self.build_headers(call), body)

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        return answered(origin, headers, body)

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        error = find_error(body) or body  # what stands between AWS and us may have OpenAI's shape
        return _refusal(origin, status, headers, error, headers.get(ERROR_TYPE) or error.get("__type") or error.get("code"))

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return ConverseEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)

    async def _encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Whatever is wanting (an image, credentials) is found wanting here, before the call is paid for."""
        request = await super()._encode(call, stream=stream)
        if hdrs.AUTHORIZATION in request.headers:
            return request
        if self._region is None:
            raise not_configured(f"the region of `{self.name}` is not in its address: set {' or '.join(REGION_VARIABLES)}")
        return await self._signer.sign(request, SERVICE, self._region)


def _environments_region() -> str | None:
    return next(filter(None, (os.environ.get(name, "").strip() for name in REGION_VARIABLES)), None)


def _at_region(settings: ProviderSettings, region: str | None) -> ProviderSettings:
    """The settings with `{region}` filled in; without an address where no region is known."""
    base = settings.base_url or BASE_URL
    if "{region}" not in base:
        return settings
    return replace(settings, base_url=base.replace("{region}", region) if region else None)


def _refusal(
    origin: Origin, status: int | None, headers: Mapping[str, str], error: Mapping[str, Any], named: Any
) -> ProviderError:
    """`refusal`, by the type of the error, as `Name`, `Name:http://…`, `com.amazon…#Name`, or a frame's `name`."""
    word = as_text(named).partition(":")[0].rpartition("#")[2]
    if word.endswith("Exception"):
        word = word[:1].upper() + word[1:]
    message = as_text(error.get("message") or error.get("Message") or error.get("originalMessage"))
    return refusal(origin, status or STATUSES.get(word), headers, {"message": message, "code": word}, kind=KINDS.get(word))


class ConverseEvents(StreamReader):
    """A streamed answer: frames in, deltas out."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._frames = FrameDecoder(origin)
        self._usage: Usage | None = None

    def _bytes(self, data: bytes, deltas: list[Delta]) -> None:
        for headers, payload in self._frames.feed(data):
            self._frame(headers, payload, deltas)
            if self.ended:
                return

    def _frame(self, headers: Mapping[str, Any], payload: bytes, deltas: list[Delta]) -> None:
        kind = headers.get(":message-type")
        if kind == "error":
            error = {"message": headers.get(":error-message")}
            raise _refusal(self._origin, None, self._headers, error, headers.get(":error-code"))
        try:
            body = parse(payload or b"{}")
        except ValueError:
            raise self._origin.malformed("sent a message that is not JSON", "invalid_json") from None
        if kind == "exception":
            raise _refusal(self._origin, None, self._headers, as_object(body), headers.get(":exception-type"))
        if type(body) is not dict:
            self._odd(body)
        if kind == "event":
            self._take({**body, "event": headers.get(":event-type")}, len(payload), deltas)

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        """Kinds of events that are not known are of no interest."""
        match chunk["event"]:
            case "contentBlockDelta" | "contentBlockStart":
                deltas += self._piece(chunk, size)
            case "messageStop":
                self._finished(0, *parse_finish_reason(self._origin, self._headers, chunk.get("stopReason")))
            case "metadata":
                self._usage = parse_usage(chunk.get("usage"))
                self.ended = bool(self._choices) and self._growing(0).finish is not None

    def _piece(self, chunk: dict[str, Any], size: int) -> list[Delta]:
        piece = as_object(chunk.get("delta") or chunk.get("start"))
        said, use = as_text(piece.get("text")), as_object(piece.get("toolUse"))
        if said and not use:
            return [self._said(0, said)]
        calls = None
        if use:
            name = {"id": use["toolUseId"], "type": "function"} if as_text(use.get("toolUseId")) else {}
            function = {"name": as_text(use.get("name")), "arguments": as_text(use.get("input"))}
            calls = [{**name, "index": chunk.get("contentBlockIndex"), "function": function}]
        delta = self._added(0, size, text=said, reasoning=thought_in(piece), calls=calls)
        return [delta] if delta else []

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, {}, choices, self._usage)
