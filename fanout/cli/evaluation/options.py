"""Options by which commands declare scorers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar, get_args

import click

from fanout.core.json_text import JsonObject
from fanout.jobs.job import FailurePolicy

Command = TypeVar("Command", bound=Callable[..., object])


def with_scorers(command: Command) -> Command:
    """Add `--scorer`, passed to the command as `scorers`: the declarations."""
    help_ = """A scorer of the answers: `exact`, `contains`, `numeric`, …, or JSON: '{"type": "regex", "pattern": "^yes"}'."""
    return click.option("--scorer", "scorers", multiple=True, callback=_parse_scorers, help=help_)(command)


def with_failure_policy(command: Command) -> Command:
    """Add `--failed`."""
    return click.option(
        "--failed",
        type=click.Choice(get_args(FailurePolicy)),
        default="score_zero",
        show_default=True,
        help="What a failed call counts in the report: a score of 0, or its row is left out for all models.",
    )(command)


def _parse_scorers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[JsonObject, ...]:
    return tuple(_parse_scorer(value) for value in values)


def _parse_scorer(text: str) -> JsonObject:
    """Return the declaration that a name or a JSON text stands for; it is validated where the job is kept."""
    if not text.lstrip().startswith("{"):
        return {"type": text}
    try:
        declared: JsonObject = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"`{text[:80]}` is not JSON: {error}") from None
    return declared
