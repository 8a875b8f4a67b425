"""What the commands of batches take: shared options, and how a deadline, a template and metadata are written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from fanout.jobs import output_files

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
SECONDS = (86_400, 3_600, 60, 1)
LONGEST_S = 10 * 365 * 86_400


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Unix seconds of a duration from now, or of a time; one without a zone is this machine's."""
    if value is None:
        return None
    moment = moment_of(value, datetime.now().astimezone())
    if moment is None:
        raise click.BadParameter(f"`{value}` is not allowed: `2h`, `1d12h`, `90m`, `18:30`, or `2026-11-20T09:30`")
    if moment <= time.time():
        raise click.BadParameter(f"`{value}` has passed")
    return moment


def moment_of(text: str, now: datetime) -> float | None:
    """Unix seconds of what is meant; `None`: nothing that we know.

    Args:
        now: with the zone of times that name none.
    """
    found = DURATION.fullmatch(text.strip())
    if found and any(found.groups()):
        seconds = sum(int(number) * size for number, size in zip(found.groups(), SECONDS, strict=True) if number)
        return now.timestamp() + seconds if seconds <= LONGEST_S else None
    if re.fullmatch(r"\d\d?:\d\d", text):
        hour, minute = map(int, text.split(":"))
        if hour > 23 or minute > 59:
            return None
        moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (moment if moment > now else moment + timedelta(days=1)).timestamp()
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (given if given.tzinfo else given.replace(tzinfo=now.tzinfo)).timestamp()


def named_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """What `NAME=value` says, each time."""
    found = {}
    for given in values:
        name, equals, text = given.partition("=")
        if not equals or not 1 <= len(name) <= 64 or len(text) > 512:
            raise click.BadParameter(f"`{given}` is not allowed: NAME=value, of 64 and 512 characters at most")
        found[name] = text
    if len(found) > 16:
        raise click.BadParameter(f"{len(found)} are not allowed: at most 16")
    return found


def text_or_file(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A text, or what the file holds that is named behind `@`."""
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise click.BadParameter(f"`{value[1:]}` cannot be read: {why}") from None


def with_server(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--server", help="Address of a running server, which keeps its jobs; without it none is needed.")(
        command
    )


def with_changes(command: Callable[..., Any]) -> Callable[..., Any]:
    """What may be changed of a job without asking anything else."""
    options = (
        click.option(
            "--max-cost", type=click.FloatRange(0, min_open=True), metavar="USD", help="It stops before it costs more."
        ),
        click.option("--deadline", callback=_moment, help="`2h`, `1d12h`, or a time: what is not done by then expires."),
        click.option("--attempts", type=click.IntRange(1, 10), help="Most tries of each call."),
        click.option("--concurrency", type=click.IntRange(1, 100_000), help="Most calls at once for each account."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def with_showing(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a job that is run is shown, and where its results go."""
    options = (
        click.option(
            "-o", "--output", "outputs", multiple=True, help="Results: .jsonl, .csv or .parquet; `-`: JSONL on standard output."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the job as JSON at its end."),
        click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def changes_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of `with_changes` out of `asked`; those that are given, by the names of a job's fields."""
    names = {"max_cost": "max_cost_usd", "deadline": "deadline", "attempts": "attempts", "concurrency": "concurrency"}
    found = {field: asked.pop(name) for name, field in names.items()}
    return {field: value for field, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Showing:
    """How a job that is run is shown, and where its results go."""

    outputs: Sequence[str]
    as_json: bool
    quiet: bool
    places: Sequence[str]
    """Options that every command about the job needs, too."""

    @classmethod
    def of(cls, asked: dict[str, Any], others: Mapping[str, Any]) -> Showing:
        """Takes its options out of `asked`.

        Args:
            others: `server`, `config` and `env-file`, as they were given.

        Raises:
            RequestError: results cannot be written there, or not in that format.
        """
        outputs = asked.pop("outputs")
        check_outputs(outputs)
        as_json = asked.pop("as_json")
        if as_json and "-" in outputs:
            raise click.UsageError("--json and `-o -` both write to standard output: take one of them")
        places = [text for name, value in others.items() if value is not None for text in (f"--{name}", str(value))]
        return cls(outputs, as_json, asked.pop("quiet"), places)

    @property
    def again(self) -> list[str]:
        """Options that write the results once more."""
        return [text for output in self.outputs for text in ("-o", output)]


def check_outputs(outputs: Sequence[str], format_: str | None = None) -> None:
    """Whether results can be written there, before anything is asked.

    Raises:
        RequestError: not in that format.
        UsageError: not there.
    """
    for output in outputs:
        output_files.make_encoder(output_files.choose_format(output, format_))
        path = Path(output)
        if output != "-" and (path.is_dir() or not path.parent.is_dir()):
            why = "it is a folder" if path.is_dir() else f"there is no folder `{path.parent}`"
            raise click.UsageError(f"`{output}` cannot be written: {why}")
    if len({str(Path(output).absolute()) for output in outputs}) < len(outputs):
        raise click.UsageError("-o names one file twice")
