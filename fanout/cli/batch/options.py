"""Options that several batch commands share, and the values they take."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.completion import complete_files
from fanout.cli.options import add_options
from fanout.core.errors import RequestError
from fanout.core.given_text import read_trimmed
from fanout.core.json_text import JsonObject

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.jobs.job import JobSpec

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
UNITS_S = (86_400, 3_600, 60, 1)
MAX_DURATION_S = 10 * 365 * 86_400  # longer times overflow datetime
MAX_LABELS, MAX_LABEL_CHARS, MAX_LABEL_VALUE_CHARS = 16, 64, 512
LIMITS = {"max_cost": "max_cost_usd", "deadline": "deadline", "attempts": "attempts", "concurrency": "concurrency"}
"""Parameters of `with_limits` → fields of a job."""
KEPT_WITH_REQUESTS = ("name", "cache", "metadata", "scorers", "failed")
"""Options of a job whose lines are whole requests."""
SAMPLING = ("max_tokens", "temperature", "top_p", "seed", "stop")


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Output of a running job, and the files for its results."""

    outputs: Sequence[str]
    as_json: bool
    quiet: bool

    @property
    def file_options(self) -> list[str]:
        """Options that make another command write the same files."""
        return [text for output in self.outputs for text in ("-o", output)]


def with_output(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `OutputOptions`, passed to the command as `output`."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, outputs: Sequence[str], as_json: bool, quiet: bool, **options: Any) -> None:
        check_outputs(outputs)
        if as_json and "-" in outputs:
            raise click.UsageError("--json and `-o -` both write to standard output: use one of them")
        command(*arguments, output=OutputOptions(outputs, as_json, quiet), **options)

    return add_options(
        wrapper,
        click.option(
            "-o",
            "--output",
            "outputs",
            multiple=True,
            help="Results: .jsonl, .csv or .parquet; `-`: JSONL on standard output.",
            shell_complete=complete_files,
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the job as JSON when it ends."),
        click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors."),
    )


def with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for a job's limits, passed to the command as `limits` by the names of a job's fields."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        given = {field: options.pop(name) for name, field in LIMITS.items()}
        limits = {field: value for field, value in given.items() if value is not None}
        command(*arguments, limits=limits, **options)

    return add_options(
        wrapper,
        click.option(
            "--max-cost", type=click.FloatRange(0, min_open=True), metavar="USD", help="Stop before the job costs more."
        ),
        click.option("--deadline", callback=_parse_deadline, help="`2h`, `1d12h`, or a time; calls not made by then expire."),
        click.option("--attempts", type=click.IntRange(1, 10), help="Maximum number of attempts for each call."),
        click.option(
            "--concurrency", type=click.IntRange(1, 100_000), help="Maximum number of calls at once for each account."
        ),
    )


def with_way(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the way in which a job's calls are sent."""
    return add_options(
        command,
        click.option("--stream", is_flag=True, help="Have answers streamed, to measure the time to first token."),
        click.option(
            "--via",
            type=click.Choice(["live", "batch"]),
            help="`batch`: through the providers' own batch APIs, within a day, at about half the price.",
        ),
        click.option(
            "--live-rest", is_flag=True, help="With --via batch: send at once what the batch APIs do not take or finish."
        ),
        click.option("--cache", is_flag=True, help="Reuse answers to the same request from other jobs."),
    )


def to_spec(options: dict[str, Any], limits: JsonObject, endpoint: str | None) -> JobSpec:
    """Return the job that the options of `fanout batch run` describe; `endpoint` is an OpenAI batch file's.

    Raises:
        UsageError: an option contradicts an OpenAI batch file, whose lines name their models and parameters themselves.
    """
    from fanout.jobs.job import JobSpec

    given = {name: options.pop(name) for name in SAMPLING}
    parameters = {name: value for name, value in given.items() if value not in (None, ())}
    models = options.pop("models")
    if endpoint is None:
        rows = tuple({"model": model} for model in models)
        options["via"] = options["via"] or "live"
        return JobSpec(models=rows, parameters=parameters, **options, **limits)
    others = {**options, "model": models, **parameters, "repeats": options["repeats"] - 1}  # 1 is the default
    redundant = [name for name, value in others.items() if value and name not in KEPT_WITH_REQUESTS]
    if redundant:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in redundant)
        raise click.UsageError(f"the lines of INPUT name their models and parameters themselves: leave out {names}")
    options.pop("via")
    return JobSpec(kind="requests", endpoint=endpoint, **options, **limits)


def _parse_deadline(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    moment = parse_moment(value, datetime.now().astimezone())
    if moment is None:
        raise click.BadParameter(f"`{value}` is not allowed: `2h`, `1d12h`, `90m`, `18:30`, or `2026-11-20T09:30`")
    if moment <= time.time():
        raise click.BadParameter(f"`{value}` has passed")
    return moment


def parse_moment(text: str, now: datetime) -> float | None:
    """Return the Unix time of a duration from now, a time of day or a date and time; `None`: it is none of these.

    A text without a time zone is in that of `now`.
    """
    found = DURATION.fullmatch(text.strip())
    if found and any(found.groups()):
        seconds = sum(int(number) * size for number, size in zip(found.groups(), UNITS_S, strict=True) if number)
        return now.timestamp() + seconds if seconds <= MAX_DURATION_S else None
    if re.fullmatch(r"\d\d?:\d\d", text):
        hour, minute = map(int, text.split(":"))
        if hour > 23 or minute > 59:
            return None
        moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (moment if moment > now else moment + timedelta(days=1)).timestamp()  # the next time it is this late
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)).timestamp()


def parse_labels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the metadata in `NAME=value` options."""
    labels = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not 1 <= len(name) <= MAX_LABEL_CHARS or len(text) > MAX_LABEL_VALUE_CHARS:
            allowed = f"NAME=value, of {MAX_LABEL_CHARS} and {MAX_LABEL_VALUE_CHARS} characters at most"
            raise click.BadParameter(f"`{value}` is not allowed: {allowed}")
        labels[name] = text
    if len(labels) > MAX_LABELS:
        raise click.BadParameter(f"{len(labels)} are not allowed: at most {MAX_LABELS}")
    return labels


def read_text_option(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a text, or the content of the file named after `@`."""
    if value is None or not value.startswith("@"):
        return value
    try:
        return read_trimmed(Path(value[1:]))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise click.BadParameter(f"`{value[1:]}` cannot be read: {reason}") from None


def check_standard_output() -> None:
    """Refuse a standard output that is closed, or open for reading only."""
    try:
        os.write(1, b"")
    except OSError as error:
        raise click.UsageError(f"standard output cannot be written: {error.strerror}") from None


def check_outputs(outputs: Sequence[str], format_: str | None = None, *, quote_formulas: bool = False) -> None:
    """Refuse files that cannot be written: a job should not find that out after it has cost money."""
    from fanout.jobs import output_files

    for output in outputs:
        # Also imports pyarrow: a missing package must not show only after the job has run.
        output_files.make_encoder(output_files.choose_format(output, format_), quote_formulas=quote_formulas)
        try:
            if output == "-":
                check_standard_output()
            else:
                output_files.check_writable(Path(output))
        except RequestError as error:
            raise click.UsageError(error.faults[0].message) from None
    if len({str(Path(output).absolute()) for output in outputs}) < len(outputs):
        raise click.UsageError("-o names one file twice")
