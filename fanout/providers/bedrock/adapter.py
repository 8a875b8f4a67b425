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
from dataclasses import replace
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.providers.bedrock import converse
from fanout.providers.bedrock.frames import FrameReader
from fanout.providers.bedrock.signing import Signer
from fanout.providers.mapping.failures import configuration_error
from fanout.providers.mapping.messages import report_left_out
from fanout.providers.mapping.tools import TOOL_FIELDS, convert_tools
from fanout.providers.parameter_tables import CONVERSE_FAMILIES, find_converse_family
from fanout.providers.parameters import accept, drop_conflicting, fit
from fanout.providers.transport.adapter_headers import take_header
from fanout.providers.transport.json_provider import InliningProvider
from fanout.providers.transport.request import HttpRequest, write_body

SERVICE = "bedrock"
BASE_URL = "https://bedrock-runtime.{region}.amazonaws.com"
REGION = re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
REGION_HEADER = "aws-region"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


class Bedrock(InliningProvider):
    """One region of one AWS account; see `InliningProvider`."""

    reader_class = FrameReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        header, settings = take_header(settings, REGION_HEADER)
        region = header or next(filter(None, (os.environ.get(name, "").strip() for name in REGION_VARIABLES)), None)
        super().__init__(_fill_region(settings, region), session)
        base = self.build_url("")
        match = REGION.search(base.host or "") if base else None
        # The region that signs must be the one that is called, whatever the environment names.
        self._region = match[1] if match else region
        row, passed_on = settings.row.parameters, converse.TOP_LEVEL | TOOL_FIELDS | {converse.MODELS_OWN}
        self._accepted = {family: accept(table, row, passed_on) for family, table in CONVERSE_FAMILIES.items()}
        self._signer = Signer(self.name)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        family = find_converse_family(target.model or "")
        accepted = self._accepted[family]
        fitted = fit(query, accepted)
        if family == "either":  # as at Anthropic: its models here are the same
            fitted = drop_conflicting(fitted, query, accepted, "temperature", "top_p")
        fitted = convert_tools(fitted, converse.convert_toolbox, has_cache_control=True)
        return report_left_out(fitted, query.messages, takes=converse.TAKEN)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode a call, unsigned; its images are data: URLs by now."""
        url = self.build_model_url(call.target.model or "", "converse-stream" if stream else "converse")
        body = write_body(converse.build_body(self._origin, call.fitted.sent, call.query), call)
        return HttpRequest(url, self.build_headers(call), body)

    def build_model_url(self, model: str, action: str) -> URL:
        """Return the address of what a model can do."""
        if self.settings.base_url is None:
            raise configuration_error(f"`{self.name}` has no region: set {' or '.join(REGION_VARIABLES)}")
        # Signed and sent exactly so: a `:` that is not quoted breaks the signature.
        return URL(f"{self.settings.base_url}/model/{quote(model, safe='')}/{action}", encoded=True)

    async def write_request(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode and sign. A missing image or credential is found here, before the call is paid for."""
        request = await super().write_request(call, stream=stream)
        if hdrs.AUTHORIZATION in request.headers:  # a Bedrock API key, which is not signed
            return request
        if self._region is None:
            raise configuration_error(f"the region of `{self.name}` is not in its address: set {' or '.join(REGION_VARIABLES)}")
        return await self._signer.sign(request, SERVICE, self._region)


def _fill_region(settings: ProviderSettings, region: str | None) -> ProviderSettings:
    """Return the settings with `{region}` filled in; without an address where no region is known."""
    base = settings.base_url or BASE_URL
    if "{region}" not in base:
        return settings
    return replace(settings, base_url=base.replace("{region}", region) if region else None)
