"""What the commands share: their options, their exit codes, their JSON. Each command is the file of its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.config import settings

if TYPE_CHECKING:
    from fanout.config.catalogue import Catalogue, Model

ALL_ANSWERED, SOME_FAILED, UNUSABLE = 0, 1, 2


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every command takes which needs a configuration."""
    path = click.Path(path_type=Path)
    command = click.option("--env-file", type=path, help="NAME=value lines, for keys; what is set already wins.")(command)
    more = "A providers.json of your own, laid over the shipped one."
    return click.option("--config", "config_file", type=path, help=more)(command)


def settings_of(config_file: Path | None, env_file: Path | None) -> settings.Settings:
    """What these options and the environment say.

    Raises:
        ConfigError: with every fault.
    """
    return settings.load(config_file, settings.with_env_file(env_file, os.environ))


def with_sampling(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of whatever asks models."""
    options = (
        click.option("--system", help="A system message, for chat models."),
        click.option("--max-tokens", type=click.IntRange(0), help="Most tokens of each answer."),
        click.option("--temperature", type=click.FloatRange(0, 2)),
        click.option("--top-p", type=click.FloatRange(0, 1)),
        click.option("--seed", type=int),
        click.option("--stop", multiple=True, help="A sequence to stop before; up to four."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def key_of(env_file: Path | None) -> str | None:
    """The key to show to a server."""
    environment = settings.Environment.read(settings.with_env_file(env_file, os.environ))
    return environment.api_keys[0].get_secret_value() if environment.api_keys else None


def print_json(answer: Any) -> None:
    """As the server would answer, indented."""
    from pydantic_core import from_json, to_json

    from fanout.rendering.encoding import encode_json

    click.echo(to_json(from_json(encode_json(answer)), indent=2))


def is_ready(model: Model, catalogue: Catalogue) -> bool:
    """Whether a model can be called now."""
    return not catalogue.lacks(model) and not catalogue.retired(model, datetime.now(UTC).date())
