"""Azure OpenAI: OpenAI's wire format at another address, with another header for the key.

Quirks (evidence: openai-python's `AzureOpenAI`, recorded traffic, Azure's documentation):
- Two addresses. A base address that ends in `/v1` (`https://NAME.openai.azure.com/openai/v1`) is the GA one: no version, the
  deployment stands in the body. Any other is the resource's endpoint: the deployment stands in the path, the version in the
  query; the row's header `api-version` says which, and is sent there instead of as a header.
- A key goes into `api-key`; a token of Entra ID (once Azure AD), which is a JWT, into `Authorization`.
- A model's name is a deployment's, so whatever its owner called it; one named like OpenAI's model is taken to be that.
- The first chunk has no choices but `prompt_filter_results`; a prompt that the filter blocks is a 400 `content_filter`.
- A request is found by its `apim-request-id`; `x-ratelimit-remaining-*` may be -1, which is "not known".
"""

from __future__ import annotations

from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.transport.adapter_headers import take_header

API_VERSION = "2024-10-21"
"""Source: the last dated GA version, https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle"""
VERSION_HEADER = "api-version"


class Azure(OpenAi):
    """One Azure resource: its deployments are the models."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        version, settings = take_header(settings, VERSION_HEADER)
        super().__init__(settings, session)
        self._version = version or API_VERSION
        self._is_openai = True  # also behind a gateway of another name

    def find_url(self, call: Call, path: str) -> URL:
        """See `OpenAi.find_url`."""
        url = super().find_url(call, path)
        base = self.settings.base_url or ""
        if base.endswith("/v1"):  # the GA address: the deployment stands in the body
            return url
        base = base if base.endswith("/openai") else f"{base}/openai"
        deployment = quote(call.target.model or "", safe="")
        query = f"{VERSION_HEADER}={quote(self._version, safe='')}"
        return URL(f"{base}/deployments/{deployment}{path}?{query}", encoded=True)

    def write_key(self, headers: CIMultiDict[str], key: str) -> None:
        """Put this key alone into the header of its kind."""
        # Only one of the two headers may stand.
        headers.popall(hdrs.AUTHORIZATION, None)
        headers.popall("api-key", None)
        # No key has a dot; a JWT has two, and begins with `{"` in base64.
        if key.startswith("eyJ") and key.count(".") == 2:
            headers[hdrs.AUTHORIZATION] = f"Bearer {key}"
        else:
            headers["api-key"] = key
