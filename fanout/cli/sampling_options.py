"""Sampling options of the commands that call models. Kept out of `options`, which `fanout --version` imports, too."""

from __future__ import annotations

from collections.abc import Callable

import click

from fanout.cli.options import Command, add_options
from fanout.core.sampling import DESCRIPTIONS, is_whole, range_of


def with_sampling(command: Command) -> Command:
    """Add the sampling options."""
    return add_options(
        command,
        click.option("--system", help="A system message, for chat models."),
        *(_number_option(name) for name in ("max_tokens", "temperature", "top_p", "seed")),
        click.option("--stop", multiple=True, help="A sequence to stop before; up to four times."),
    )


def _number_option(name: str) -> Callable[[Command], Command]:
    kind = _int_type(name) if is_whole(name) else click.FloatRange(*range_of(name))
    return click.option(f"--{name.replace('_', '-')}", type=kind, help=DESCRIPTIONS[name])


def _int_type(name: str) -> click.IntRange | type[int]:
    low, high = (None if end is None else int(end) for end in range_of(name))
    return int if name == "seed" else click.IntRange(low, high)  # the range of 64 bits would only clutter the help
