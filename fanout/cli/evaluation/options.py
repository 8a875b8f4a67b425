"""Options by which commands declare scorers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast, get_args

import click

from fanout.cli.options import add_options
from fanout.core.json_text import JsonObject
from fanout.jobs.stopping import make_plan
from fanout.store.jobs.records import FailurePolicy

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


def with_stopping(command: Command) -> Command:
    """Add the options of `until_decided`, passed to the command as `until_decided`: a plan, or an empty one."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> object:
        metric = options.pop("until_decided")
        given = {name: options.pop(name) for name in ("margin", "alpha", "max_items")}
        if metric is None and (redundant := [name for name, value in given.items() if value is not None]):
            names = ", ".join(f"--{name.replace('_', '-')}" for name in redundant)
            raise click.UsageError(f"{names} belongs to --until-decided")
        alpha = 0.05 if given["alpha"] is None else given["alpha"]
        plan = {} if metric is None else make_plan(metric, given["margin"], alpha, given["max_items"])
        return command(*arguments, until_decided=plan, **options)

    chance = click.FloatRange(0, 1, min_open=True, max_open=True)
    return cast(
        Command,
        add_options(
            wrapper,
            click.option("--until-decided", metavar="SCORER", help="Stop as soon as this scorer shows which model is better."),
            click.option("--margin", type=chance, help="Also stop when the models are equal within this difference."),
            click.option("--alpha", type=chance, help="Chance to see a difference where there is none; default: 0.05."),
            click.option("--max-items", type=click.IntRange(1), help="Rows to run at most; default: all."),
        ),
    )


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
