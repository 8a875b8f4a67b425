"""The values each provider requires before it can be called. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fanout.config.providers_file import REFERENCE
from fanout.config.settings import ProviderSettings

ProviderGroup = Literal["key", "account", "server"]
TITLES: Mapping[ProviderGroup, str] = {"key": "With a key", "account": "Cloud accounts", "server": "Servers of your own"}
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
HEADER_VALUE = re.compile(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A value a provider requires."""

    variable: str
    alternatives: tuple[str, ...] = ()
    """Other variables that may hold it."""
    is_secret: bool = False
    is_optional: bool = False
    is_address: bool = False

    def find_fault(self, value: str) -> str | None:
        """Return the reason why this cannot be the value, without quoting it: it may be a secret."""
        if self.is_address and not ADDRESS.fullmatch(value):
            return "not an address like `https://host/v1`"
        if not HEADER_VALUE.fullmatch(value):
            return "it contains a character that is not printable ASCII; was it pasted whole, and nothing else?"
        return None

    def find_variable(self, environ: Mapping[str, str]) -> str | None:
        """Return the variable that holds the value, if one does."""
        return next((name for name in (self.variable, *self.alternatives) if environ.get(name, "").strip()), None)


def list_requirements(provider: ProviderSettings) -> list[Requirement]:
    """Return the values a provider requires, in the order to ask for them."""
    row, required = provider.row, []
    if row.base_url_env and (not row.base_url or _is_local_server(provider)):
        required.append(Requirement(row.base_url_env, is_address=True))
    if row.api_key_env:
        required.append(Requirement(row.api_key_env[0], row.api_key_env[1:], is_secret=True, is_optional=row.key_optional))
    # A header may repeat the key.
    headers = [name for name in _list_header_variables(provider) if name not in row.api_key_env]
    return required + [Requirement(name, is_secret=bool(SECRET_NAME.search(name))) for name in headers]


def _list_header_variables(provider: ProviderSettings) -> list[str]:
    """Return the variables that the provider's headers refer to."""
    found = (match[1] for text in provider.row.headers.values() for match in REFERENCE.finditer(text))
    return list(dict.fromkeys(found))


def _is_local_server(provider: ProviderSettings) -> bool:
    return provider.row.key_optional and not _list_header_variables(provider)


def classify_provider(provider: ProviderSettings) -> ProviderGroup | None:
    """Return the group under which a provider is listed; `None` if it requires nothing."""
    requirements = list_requirements(provider)
    if not requirements:
        return None
    if _is_local_server(provider):
        return "server"
    # One secret is something to paste; more of them need a visit to the vendor's console.
    return "key" if len(requirements) == 1 and requirements[0].is_secret else "account"


def list_configurable(providers: Mapping[str, ProviderSettings]) -> list[str]:
    """Return the providers that require something, group by group."""
    return [name for group in TITLES for name, provider in providers.items() if classify_provider(provider) == group]


def is_complete(provider: ProviderSettings, environ: Mapping[str, str]) -> bool:
    """Return whether every required value is set."""
    required = [item for item in list_requirements(provider) if not item.is_optional]
    return all(item.find_variable(environ) or (item.is_address and provider.base_url) for item in required)
