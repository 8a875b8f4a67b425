"""Google's generateContent format, as Vertex AI serves it: another address, and a token that expires instead of a key.

Quirks (evidence: google-genai 3.3.0 `_api_client.py`, google-auth 2.62):
- The address holds project and place: the row's header `google-cloud-project`, which is not sent, else
  `GOOGLE_CLOUD_PROJECT` (else what the credentials say) and `GOOGLE_CLOUD_LOCATION`
  (else `global`), unless the row's `base_url` names them.
- The credentials are found as Google's own tools find them ("application default credentials"); google-auth does that and
  refreshes the token, both blocking, so in a thread.
- A day's quota, penalties and several candidates are as for the Gemini API, but penalties end only with Gemini 3.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference for every wire field.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.schema import Call, Failure, FailureKind
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.mapping.failures import Origin
from fanout.providers.transport.adapter_headers import take_header
from fanout.providers.transport.http import HttpRequest

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EARLY_S = 225.0
"""How long before it expires a token is replaced. Source: google-auth `_helpers.REFRESH_THRESHOLD`."""
EVERYWHERE = "global"
REGIONS = ("us", "eu")
"""Places of several regions, which have hosts of their own."""


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Vertex:
    """The provider of one row; see `providers.create`."""
    return Vertex(settings, session)


class Vertex(Gemini):
    """Gemini models in a project of Google Cloud."""

    key_header = hdrs.AUTHORIZATION
    key_prefix = "Bearer "
    on_vertex = True

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        project, settings = take_header(settings, "google-cloud-project")
        super().__init__(settings, session)
        self._place = os.environ.get("GOOGLE_CLOUD_LOCATION", "").strip() or EVERYWHERE
        self.token = Token(self.name, project or os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip() or None)

    def base(self) -> str | None:
        if self.settings.base_url is not None:
            return self.settings.base_url
        return address(self.token.project, self._place) if self.token.project else None

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        headers = super().build_headers(call)
        if self.token.value is None or hdrs.AUTHORIZATION in headers:
            return headers
        headers = headers.copy()
        headers[hdrs.AUTHORIZATION] = f"Bearer {self.token.value}"
        if self.token.payer:
            headers["x-goog-user-project"] = self.token.payer
        return headers

    def origin(self, call: Call) -> Origin:
        origin = super().origin(call)
        return origin.also(self.token.value) if self.token.value else origin

    async def _encode(self, call: Call, *, stream: bool) -> HttpRequest:
        if hdrs.AUTHORIZATION not in self._headers and call.credential is None:
            await self.token.ready()
        return await super()._encode(call, stream=stream)


def address(project: str, place: str) -> str:
    """Where the models of a project are. Source: google-genai 3.3.0 `_api_client.py`."""
    host = f"{place}-aiplatform.googleapis.com"
    if place == EVERYWHERE:
        host = "aiplatform.googleapis.com"
    elif place in REGIONS:
        host = f"aiplatform.{place}.rep.googleapis.com"
    return f"https://{host}/v1/projects/{project}/locations/{place}/publishers/google"


class Token:
    """The account's access token: fetched at the first call, replaced before it expires, by one refresh at a time."""

    def __init__(self, name: str, project: str | None) -> None:
        self.value: str | None = None
        self.project = project
        self.payer: str | None = None
        """The project whose quota the calls count for, where the credentials name one."""
        self._name = name
        self._credentials: Any = None
        self._expires_s = 0.0
        """Unix time."""
        self._refreshing: asyncio.Future[None] | None = None

    async def ready(self) -> None:
        """Returns once there is a token that is valid; one that is about to expire is replaced while it still serves.

        Raises:
            ProviderError: google-auth or the credentials are missing, or refused.
        """
        left_s = self._expires_s - time.time()
        if left_s > EARLY_S:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(asyncio.to_thread(self._refresh))
            self._refreshing.add_done_callback(self._refreshed)
        if left_s <= 0:
            await asyncio.shield(self._refreshing)  # others wait for it, too: one who leaves must not take it along

    def _refreshed(self, refreshing: asyncio.Future[None]) -> None:
        self._refreshing = None
        if not refreshing.cancelled():
            refreshing.exception()  # whoever waited has it; if nobody did, the next call tries again

    def _refresh(self) -> None:
        """Runs in a thread: google-auth reads files and waits for answers."""
        try:
            auth, errors = import_module("google.auth"), import_module("google.auth.exceptions")
            transport = import_module("google.auth.transport.requests")
        except ImportError:
            sentence = f"`{self._name}` needs the package google-auth: pip install 'fanout[vertex]'"
            raise ProviderError(Failure("not_configured", sentence, code="provider_not_configured")) from None
        try:
            if self._credentials is None:
                self._credentials, found = auth.default(scopes=[SCOPE])
                self.project = self.project or found
            self._credentials.refresh(transport.Request())
        except (errors.GoogleAuthError, OSError, ValueError) as error:
            raise self._failure(error, errors) from error
        if self.project is None:
            raise self._missing("a project in `GOOGLE_CLOUD_PROJECT`")
        self.payer = getattr(self._credentials, "quota_project_id", None)
        expiry: datetime | None = self._credentials.expiry  # UTC, without saying so
        self._expires_s = expiry.replace(tzinfo=UTC).timestamp() if expiry else float("inf")
        self.value = self._credentials.token

    def _failure(self, error: Exception, errors: Any) -> ProviderError:
        """Its words name files, accounts and addresses, so they are not passed on."""
        if not isinstance(error, errors.GoogleAuthError) or isinstance(error, errors.DefaultCredentialsError):
            return self._missing("credentials in `GOOGLE_APPLICATION_CREDENTIALS`, or `gcloud auth application-default login`")
        told: tuple[FailureKind, str, str] = ("auth", "invalid_api_key", "refused the credentials")
        if isinstance(error, errors.TransportError):
            told = ("network", "connect_error", "has a token service that cannot be reached")
        elif getattr(error, "retryable", False):
            told = ("server", "token_unavailable", "has a token service that failed")
        kind, code, sentence = told
        return ProviderError(Failure(kind, f"`{self._name}` {sentence}", code=code))

    def _missing(self, what: str) -> ProviderError:
        return ProviderError(Failure("not_configured", f"`{self._name}` needs {what}", code="provider_not_configured"))
