"""Options, exit codes and JSON output that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

# Imported only when used: `fanout --version` should not wait for the configuration.
if TYPE_CHECKING:
    from fanout.config.catalogue import Catalogue, Model
    from fanout.config.settings import Settings

ALL_ANSWERED, SOME_FAILED, UNUSABLE = 0, 1, 2
Command = TypeVar("Command", bound=Callable[..., object])


def add_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Add options to a command, listed in its help in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def with_settings(command: Command) -> Command:
    """Add the options of every command that reads the configuration."""
    path = click.Path(path_type=Path)
    return add_options(
        command,
        click.option("--config", "config_file", type=path, help="Your own providers.json, merged over the built-in one."),
        click.option(
            "--env-file", type=path, help="A file of NAME=value lines, for keys; variables already set take precedence."
        ),
    )


def load_settings(config_file: Path | None, env_file: Path | None) -> Settings:
    """Load the configuration that these options and the environment name.

    Raises:
        ConfigError: with every fault.
    """
    from fanout.config import settings
    from fanout.config.env_file import add_env_file

    return settings.load_settings(config_file, add_env_file(env_file, os.environ))


def read_server_key(env_file: Path | None) -> str | None:
    """Return the key to send to a Fanout server: the first of FANOUT_API_KEYS."""
    from fanout.config.env_file import add_env_file
    from fanout.config.environment import Environment

    environment = Environment.read(add_env_file(env_file, os.environ))
    return environment.api_keys[0].get_secret_value() if environment.api_keys else None


def print_json(answer: object) -> None:
    """Print what the server would answer, indented."""
    from fanout.rendering.encoding import encode_json

    click.echo(encode_json(answer, indent=2))


def is_ready(model: Model, catalogue: Catalogue) -> bool:
    """Return whether a model can be called now."""
    return not catalogue.lacks(model) and not catalogue.refuse_retired(model, datetime.now(UTC).date())
