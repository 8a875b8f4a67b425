"""The store that several processes share, as `--url` or FANOUT_STORE names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fanout.cli.options import load_settings
from fanout.core.errors import ConfigError, Fault

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.config.settings import Settings

ALLOWED = "allowed: `postgresql://USER@HOST/DATABASE`, or the file of a SQLite store that exists"


def url_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--url`."""
    help_ = "The shared store: a PostgreSQL URL, or an existing SQLite file. By default FANOUT_STORE."
    return click.option("--url", metavar="STORE", help=help_)(command)


def load_sharing_settings(config_file: Path | None, env_file: Path | None, url: str | None) -> Settings:
    """Load the configuration with a store that others share.

    Raises:
        ConfigError: with every fault; or others cannot share that store, or it does not exist.
    """
    settings = load_settings(config_file, env_file, **({} if url is None else {"FANOUT_STORE": url}))
    stored, name = settings.environment.store, "FANOUT_STORE" if url is None else "--url"
    if sentence := _find_fault(stored.get_secret_value() if stored else "", name):
        raise ConfigError("environment" if url is None else "command line", [Fault(name, sentence)])
    return settings


def name_store(settings: Settings) -> str:
    """Return the name of the store: a file's path, or host and database alone."""
    from fanout.store.engine.location import name_database, parse_location

    return name_database(parse_location(find_location(settings)))


def find_location(settings: Settings) -> str:
    """Return the location of the store."""
    stored = settings.environment.store
    return stored.get_secret_value() if stored else ""


def _find_fault(location: str, name: str) -> str | None:
    """Return why others cannot share a store, as the end of a sentence that begins with its option or variable."""
    from fanout.store.engine.location import MEMORY, OFF, find_file, parse_location

    # No sentence quotes a URL: it may hold a password.
    if location in ("", MEMORY, OFF):
        return f"{f'is `{location}`' if location else 'is not set'}, which no other process can use; {ALLOWED}"
    try:
        url = parse_location(location)
    except ConfigError as error:  # of the same faults, by the name that was used
        return error.faults[0].message
    if url.get_backend_name() != "sqlite":
        return None
    path = find_file(url)
    if path is None:
        return f"names a database in memory, which no other process can use; {ALLOWED}"
    return None if path.is_file() else f"names `{path}`, and there is no such file; {ALLOWED}"
