"""Options, exit codes and JSON output that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fanout.cli.output import echo_json
from fanout.core.sampling import DESCRIPTIONS, is_whole, range_of

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.config.catalogue import Catalogue, Model
    from fanout.config.settings import Settings

ALL_ANSWERED, SOME_FAILED = 0, 1
Command = TypeVar("Command", bound=Callable[..., object])


def add_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Add options to a command, listed in its help in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def with_settings(command: Command) -> Command:
    """Add the options of every command that reads the configuration."""
    path, env_help = click.Path(path_type=Path), "A file of NAME=value lines, for keys; variables already set take precedence."
    return add_options(
        command,
        click.option("--config", "config_file", type=path, help="Your own providers.json, merged over the built-in one."),
        click.option("--env-file", type=path, help=env_help),
    )


def with_sampling(command: Command) -> Command:
    """Add the options of the commands that call models."""
    return add_options(
        command,
        click.option("-s", "--system", help="A system message, for chat models."),
        *(_number_option(name) for name in ("max_tokens", "temperature", "top_p", "seed")),
        click.option("--stop", multiple=True, help="A sequence to stop before; up to four times."),
    )


def model_option(complete: Callable[..., Any]) -> Callable[[Command], Command]:
    """Return the option `-m` of the commands that call several models."""
    help_ = "A model, an alias, a set, <provider>/<id>, or a pattern such as 'gpt-*'; several with commas, or repeated."
    return click.option("-m", "--model", "models", multiple=True, help=help_, shell_complete=complete)


def timeout_option(help_: str, default: float | None = None) -> Callable[[Command], Command]:
    """Return the option `--timeout`."""
    seconds = click.FloatRange(0, 600, min_open=True)
    return click.option("--timeout", "timeout_s", default=default, show_default=default is not None, type=seconds, help=help_)


def _number_option(name: str) -> Callable[[Command], Command]:
    number_range: Callable[..., Any] = click.IntRange if is_whole(name) else click.FloatRange
    kind = int if name == "seed" else number_range(*range_of(name))  # the range of 64 bits would only clutter the help
    return click.option(f"--{name.replace('_', '-')}", type=kind, help=DESCRIPTIONS[name])


def load_settings(config_file: Path | None, env_file: Path | None, **variables: str) -> Settings:
    """Load the configuration that these options and the environment name; `variables` come before the environment's.

    Raises:
        ConfigError: with every fault.
    """
    from fanout.config import settings
    from fanout.config.env_file import add_env_file

    return settings.load_settings(config_file, add_env_file(env_file, {**os.environ, **variables}))


def read_server_key(env_file: Path | None) -> str | None:
    """Return the key to send to a Fanout server: the first of FANOUT_API_KEYS."""
    from fanout.config.env_file import add_env_file
    from fanout.config.environment import Environment

    # Not the whole configuration: a faulty providers.json is no reason not to ask a server.
    environment = Environment.read(add_env_file(env_file, os.environ))
    return environment.api_keys[0].secret.get_secret_value() if environment.api_keys else None


def print_json(answer: object) -> None:
    """Print what the server would answer, indented."""
    echo_json(answer, indent=2)


def is_ready(model: Model, catalogue: Catalogue) -> bool:
    """Return whether a model can be called now."""
    return not catalogue.lacks(model) and not catalogue.refuse_after_shutdown(model, datetime.now(UTC).date())
