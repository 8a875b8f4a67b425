"""Google's generateContent format, as Vertex AI serves it: another address, and a token that expires instead of a key.

Quirks (evidence: google-genai 3.3.0 `_api_client.py`, google-auth 2.62):
- The address holds project and place: the row's header `google-cloud-project`, which is not sent, else
  `GOOGLE_CLOUD_PROJECT` (else the credentials' own) and `GOOGLE_CLOUD_LOCATION`
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
from typing import Any, TypeAlias

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError, explain_missing_extra
from fanout.core.schema import Call, Failure, FailureKind
from fanout.core.threads import run_in_thread
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.mapping.failures import Origin, configuration_error
from fanout.providers.transport.adapter_headers import take_header
from fanout.providers.transport.request import HttpRequest

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REFRESH_EARLY_S = 225.0
"""Time before its end at which a token is replaced. Source: google-auth `_helpers.REFRESH_THRESHOLD`."""
GLOBAL = "global"
MULTI_REGIONS = ("us", "eu")
"""Locations of several regions, which have hosts of their own."""

GoogleAuth: TypeAlias = Any
"""Modules and credentials of google-auth, which is imported only where it is used."""


class Vertex(Gemini):
    """Gemini models in a project of Google Cloud."""

    key_header = hdrs.AUTHORIZATION
    key_prefix = "Bearer "
    is_vertex = True

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        project, settings = take_header(settings, "google-cloud-project")
        super().__init__(settings, session)
        self._location = os.environ.get("GOOGLE_CLOUD_LOCATION", "").strip() or GLOBAL
        self.token = AccessToken(self.name, project or os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip() or None)

    def find_base(self) -> str | None:
        """Return the address before `/models/…`; `None` until the project is known, which the credentials may name."""
        if self.settings.base_url is not None:  # a gateway: it names project and location itself
            return self.settings.base_url
        return build_project_address(self.token.project, self._location) if self.token.project else None

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        headers = super().build_headers(call)
        # A key of the row or of the caller goes before our token.
        if self.token.value is None or hdrs.AUTHORIZATION in headers:
            return headers
        headers = headers.copy()
        headers[hdrs.AUTHORIZATION] = f"Bearer {self.token.value}"
        if self.token.payer:
            headers["x-goog-user-project"] = self.token.payer  # user credentials do not imply a project to charge
        return headers

    def origin(self, call: Call) -> Origin:
        """Return the origin of a call; its token must not be shown either."""
        origin = super().origin(call)
        return origin.with_secret(self.token.value) if self.token.value else origin

    async def write_request(self, call: Call, *, stream: bool) -> HttpRequest:
        if hdrs.AUTHORIZATION not in self._headers and call.credential is None:
            await self.token.refresh_if_due()
        return await super().write_request(call, stream=stream)


def build_project_address(project: str, location: str) -> str:
    """Return the base address of a project's models. Source: google-genai 3.3.0 `_api_client.py`."""
    host = f"{location}-aiplatform.googleapis.com"
    if location == GLOBAL:
        host = "aiplatform.googleapis.com"
    elif location in MULTI_REGIONS:
        host = f"aiplatform.{location}.rep.googleapis.com"
    return f"https://{host}/v1/projects/{project}/locations/{location}/publishers/google"


class AccessToken:
    """The account's access token: fetched at the first call, replaced before it expires, by one refresh at a time."""

    def __init__(self, name: str, project: str | None) -> None:
        self.value: str | None = None
        self.project = project
        self.payer: str | None = None
        """The project whose quota the calls count for, where the credentials name one."""
        self._name = name
        self._credentials: GoogleAuth = None
        self._expires_s = 0.0
        """Unix time."""
        self._refreshing: asyncio.Future[None] | None = None

    async def refresh_if_due(self) -> None:
        """Return once there is a valid token; one that is about to expire is replaced while it still serves.

        Raises:
            ProviderError: google-auth or the credentials are missing, or refused.
        """
        left_s = self._expires_s - time.time()
        if left_s > REFRESH_EARLY_S:
            return
        if self._refreshing is None:  # one refresh at a time, however many calls wait
            self._refreshing = asyncio.ensure_future(run_in_thread("setup", self._refresh))
            self._refreshing.add_done_callback(self._forget_refresh)
        if left_s <= 0:
            await asyncio.shield(self._refreshing)  # others wait for it, too: one who leaves must not take it along

    def _forget_refresh(self, refreshing: asyncio.Future[None]) -> None:
        self._refreshing = None
        if not refreshing.cancelled():
            refreshing.exception()  # whoever waited has it; if nobody did, the next call tries again

    def _refresh(self) -> None:
        """Fetch a token. Runs in a thread: google-auth reads files and waits for answers."""
        try:
            auth, errors = import_module("google.auth"), import_module("google.auth.exceptions")
            transport = import_module("google.auth.transport.requests")
        except ImportError:
            raise self._missing_error(explain_missing_extra("google-auth", "vertex")) from None
        try:
            if self._credentials is None:
                self._credentials, default_project = auth.default(scopes=[SCOPE])
                self.project = self.project or default_project  # the configured project wins
            self._credentials.refresh(transport.Request())
        except (errors.GoogleAuthError, OSError, ValueError) as error:
            raise self._to_provider_error(error, errors) from error
        if self.project is None:
            raise self._missing_error("a project in `GOOGLE_CLOUD_PROJECT`")
        self.payer = getattr(self._credentials, "quota_project_id", None)
        expiry: datetime | None = self._credentials.expiry  # in UTC, without a zone
        self._expires_s = expiry.replace(tzinfo=UTC).timestamp() if expiry else float("inf")
        self.value = self._credentials.token

    def _to_provider_error(self, error: Exception, errors: GoogleAuth) -> ProviderError:
        """Return the failure in words of ours: google-auth's name files, accounts and addresses."""
        if not isinstance(error, errors.GoogleAuthError) or isinstance(error, errors.DefaultCredentialsError):
            needed = "credentials in `GOOGLE_APPLICATION_CREDENTIALS`, or `gcloud auth application-default login`"
            return self._missing_error(needed)
        if isinstance(error, errors.TransportError):
            return self._token_error("network", "connect_error", "has a token service that cannot be reached")
        if getattr(error, "retryable", False):
            return self._token_error("server", "token_unavailable", "has a token service that failed")
        return self._token_error("auth", "invalid_api_key", "refused the credentials")

    def _token_error(self, kind: FailureKind, code: str, sentence: str) -> ProviderError:
        return ProviderError(Failure(kind, f"`{self._name}` {sentence}", code=code))

    def _missing_error(self, needed: str) -> ProviderError:
        return configuration_error(f"`{self._name}` needs {needed}", "provider_not_configured")
