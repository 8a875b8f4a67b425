"""The operator's settings: the environment and `providers.json`, validated whole at start, typed and frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from fanout.config.env_file import add_env_file
from fanout.config.environment import Environment, find_config_folder
from fanout.config.overlay import SHIPPED, References, overlay, read_layer, remove_adapter
from fanout.config.providers_file import ADDRESS, NO_ADDRESS, REFERENCE, ModelRow, ProviderRow
from fanout.config.proxies import DIRECT, Proxies, read_proxies
from fanout.config.rows import Rows
from fanout.core.errors import ConfigError, Fault

EMBEDDED = "ngram"
"""Adapter of the embedded models."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A provider's row, completed from the environment."""

    name: str
    row: ProviderRow
    source: str
    """File that the row comes from."""
    base_url: str | None
    key: SecretStr | None
    headers: Mapping[str, SecretStr]
    missing: tuple[str, ...]
    """Variables other than the key's that must be set before this provider can be called."""
    missing_key: str | None
    """The key's variables, joined by ` or `, where none of them is set."""
    max_answer_bytes: int
    """Size of the largest answer taken from it."""
    proxies: Proxies = DIRECT
    """Proxies that its requests go through."""
    fetch_images: bool = True
    """Whether images are fetched from their addresses for it, where it takes only their bytes."""

    @property
    def priced_as(self) -> str:
        """Name of the provider in the published prices; empty where it has none."""
        return self.name if self.row.prices is None else self.row.prices

    @property
    def adapter(self) -> str:
        """Name of the wire format, or of a module outside the package."""
        return self.row.adapter

    def lacks(self, *, own_key: bool = False) -> tuple[str, ...]:
        """Return the variables to set before this provider can be called; a caller's own key replaces ours."""
        return self.missing if own_key or not self.missing_key else (self.missing_key, *self.missing)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the operator."""

    environment: Environment
    files: tuple[str, ...]
    providers: Mapping[str, ProviderSettings]
    models: Mapping[str, ModelRow]
    sets: Mapping[str, tuple[str, ...]]
    default_provider: Mapping[str, str | None]
    notices: tuple[str, ...] = ()
    """Shipped names that gave way to the user's own."""
    switched_off: frozenset[str] = frozenset()
    """Names of what `FANOUT_EMBEDDED_MODELS=off` has removed."""


def load_settings(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and merge the files: the shipped one, then `config`, `FANOUT_CONFIG` or the user's own.

    The working directory is never searched: a stranger's folder must not redirect keys or import code.

    Args:
        config: a providers.json of your own.
        environ: variables; by default this process's, over those of the user's own `keys.env`.

    Raises:
        ConfigError: with every fault of the variables; without any, of the file; without any, of both together.
    """
    environ = add_env_file(None, os.environ) if environ is None else environ
    environment = Environment.read(environ)
    own = config or environment.config or _find_own_file(environ)
    # One file of the operator's at most: two would leave open which of them holds an entry.
    layers = [read_layer(own)] if own else []
    if not own or layers[0].file.extends:
        layers.insert(0, read_layer(SHIPPED))
    rows = overlay(layers)
    faults = [*rows.faults, *References(rows).faults(), *_check_addresses(rows, environ), *read_proxies(environ, None)[1]]
    if faults:
        raise ConfigError(", ".join(dict.fromkeys(fault.source for fault in faults)), faults)
    switched_off = remove_adapter(rows, EMBEDDED) if environment.embedded_models == "off" else frozenset()
    return Settings(
        environment=environment,
        files=tuple(layer.source for layer in layers),
        providers={
            name: _resolve_row(name, row, rows.origin["providers", name], environ, environment)
            for name, row in rows.providers.items()
        },
        models=rows.models,
        sets=rows.sets,
        default_provider=rows.default_provider,
        notices=tuple(rows.notices),
        switched_off=switched_off,
    )


def _find_own_file(environ: Mapping[str, str]) -> Path | None:
    """Return the providers.json in the user's configuration folder, if there is one."""
    folder = find_config_folder(environ)
    path = folder / "providers.json" if folder else None
    try:
        return path if path and path.is_file() else None
    except PermissionError:
        return path  # reading it will raise the error that explains this


def _check_addresses(rows: Rows, environ: Mapping[str, str]) -> list[Fault]:
    """Return the faults of addresses in variables."""
    variables = dict.fromkeys(row.base_url_env for row in rows.providers.values() if row.base_url_env)
    return [
        Fault(name, NO_ADDRESS, source="environment")
        for name in variables
        if (address := environ.get(name, "").strip()) and not re.fullmatch(ADDRESS, address)
    ]


def _resolve_row(
    name: str, row: ProviderRow, source: str, environ: Mapping[str, str], environment: Environment
) -> ProviderSettings:
    """Complete a row with its variables' values; a variable that is empty counts as unset."""

    def get_value(variable: str) -> str:
        return environ.get(variable, "").strip()

    # Several variables: vendors renamed theirs, and a machine may still have the old one.
    keys = [get_value(variable) for variable in row.api_key_env]
    key = next(filter(None, keys), None)
    base_url = (row.base_url_env and get_value(row.base_url_env)) or row.base_url
    wanted = [row.base_url_env] if row.base_url_env and not base_url else []
    wanted += [match[1] for text in row.headers.values() for match in REFERENCE.finditer(text)]
    return ProviderSettings(
        name=name,
        row=row,
        source=source,
        base_url=base_url.rstrip("/") if base_url else None,
        key=SecretStr(key) if key else None,
        headers={
            header: SecretStr(REFERENCE.sub(lambda match: get_value(match[1]), text)) for header, text in row.headers.items()
        },
        missing=tuple(variable for variable in dict.fromkeys(wanted) if not get_value(variable)),
        missing_key=" or ".join(row.api_key_env) if keys and not key and not row.key_optional else None,
        max_answer_bytes=environment.max_answer_bytes,
        proxies=read_proxies(environ, row.proxy)[0],
        fetch_images=environment.fetch_images == "on",
    )
