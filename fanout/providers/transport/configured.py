"""A provider's row as its requests need it: address, headers, keys, and the secrets that no failure may show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from fanout.config.providers_file import REFERENCE
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ConfigError, Fault, ProviderError
from fanout.core.schema import Call, Failure
from fanout.providers.mapping.failures import Origin, configuration_error
from fanout.providers.mapping.redact import spell_secrets

HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
PLAIN_HEADERS = frozenset(
    {"user-agent", "content-type", "accept", "accept-encoding", "anthropic-version", "x-amz-date", "x-goog-user-project"}
)
"""Headers of requests that bear no secret; of the row's own, those without a `${VARIABLE}`."""


class ConfiguredProvider:
    """A provider with its settings; the base of every format's adapter."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self.settings = settings
        self._origin = build_origin(settings)
        row = {name.lower() for name, text in settings.row.headers.items() if not REFERENCE.search(text)}
        self._plain_headers = PLAIN_HEADERS | row

    def build_url(self, path: str) -> URL | None:
        """Return an address of this provider; `None` while its variable is not set.

        Raises:
            ConfigError: the base address is malformed.
        """
        if self.settings.base_url is None:
            return None
        try:
            url = URL(self.settings.base_url + path)
        except ValueError:
            raise self._build_fault("base_url", "is not an address, as `https://host/v1`") from None
        # aiohttp would turn them into a header, and logs and errors show addresses.
        if url.user or url.password:
            raise self._build_fault("base_url", "holds a user or password; put it in a variable and name that in `headers`")
        return url

    def require_url(self, url: URL | None) -> URL:
        """Return an address of this provider.

        Raises:
            ProviderError: `not_configured`: its variable is not set.
        """
        if url is None:
            raise configuration_error(f"`{self.name}` has no address")
        return url

    def build_common_headers(self) -> CIMultiDict[str]:
        """Return the headers of every request, those of the row among them.

        Uncompressed: answers are small, and a proxy that compresses delays a stream's pieces.

        Raises:
            ConfigError: a value that no header can carry.
        """
        # Whatever the letters' case in the row, so that its User-Agent replaces ours instead of standing beside it.
        headers = CIMultiDict({"User-Agent": "fanout", "Content-Type": "application/json", "Accept-Encoding": "identity"})
        for name, secret in self.settings.headers.items():
            if value := _strip(secret):
                if not HEADER_VALUE.fullmatch(value):
                    raise self._build_fault(f"headers.{name}", "is not printable ASCII, as a header's value must be")
                headers[name] = value
        return headers

    def read_configured_key(self) -> str | None:
        """Return the configured key, as it goes into a header.

        Raises:
            ConfigError: no header can carry it.
        """
        key = _strip(self.settings.key) if self.settings.key else None
        if key and not HEADER_VALUE.fullmatch(key):
            raise self._build_fault("api_key_env", "names a variable whose value is not printable ASCII, as a key must be")
        return key or None

    def read_caller_key(self, call: Call) -> str | None:
        """Return the caller-supplied key, if there is one.

        Raises:
            ProviderError: no header can carry it.
        """
        if call.credential is None:
            return None
        key = _strip(call.credential.key)
        # A line break in a caller's key would be a second header of theirs, sent under the operator's address.
        if not HEADER_VALUE.fullmatch(key):
            raise ProviderError(Failure("auth", f"the key for `{self.name}` is malformed", code="invalid_api_key"))
        return key

    def origin(self, call: Call) -> Origin:
        """Return the origin of a call's failures, which must not show a caller-supplied key either."""
        # One origin for all other calls: the spellings of a key are found once, not for each call.
        return self._origin.with_secret(_strip(call.credential.key)) if call.credential else self._origin

    def find_secrets(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Return the secrets that a request bears, be they keys, tokens or signatures: only they can come back."""
        return spell_secrets(value for name, value in headers.items() if name.lower() not in self._plain_headers)

    def _build_fault(self, field: str, wrong: str) -> ConfigError:
        return ConfigError(self.settings.source, [Fault(f"providers.{self.name}.{field}", wrong)])


def find_proxy(settings: ProviderSettings, url: URL) -> str | None:
    """Return the proxy through which a provider's request to an address goes."""
    proxy = settings.proxies.find(url.scheme, url.host or "", url.port)
    return proxy.get_secret_value() if proxy else None


def build_origin(settings: ProviderSettings) -> Origin:
    """Return the origin of a provider's failures, with the secrets that they must not show."""
    secrets = spell_secrets((settings.key, *settings.headers.values()))
    return Origin(settings.name, secrets, is_keyless=settings.row.key_optional and not (settings.key or settings.headers))


def list_secrets(settings: Iterable[ProviderSettings]) -> tuple[str, ...]:
    """Return all secrets of these rows: keys, and headers that are filled from variables."""
    return spell_secrets(
        secret
        for row in settings
        for secret in (row.key, *(row.headers[name] for name, text in row.row.headers.items() if REFERENCE.search(text)))
    )


def _strip(secret: SecretStr) -> str:
    return secret.get_secret_value().strip()  # a key read from a file often ends in a newline
