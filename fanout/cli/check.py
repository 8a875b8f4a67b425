"""`fanout check`: is the configuration valid, do the providers answer?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from fanout.cli import side_by_side
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, is_ready, print_json, settings_of, with_settings
from fanout.config.catalogue import Catalogue
from fanout.config.settings import Settings
from fanout.core.suggestions import did_you_mean
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.probe.diagnosis import Finding
from fanout.probe.probe import Trial, trials, tried

COLUMNS = ("provider", "model", "reachable", "key", "known", "streams", "usage", "time", "cost", "next")
ANSWERS: Mapping[bool | None, str] = {True: "yes", False: "no", None: "?"}
LEAST_FOR_ADVICE = 30
"""Columns that the last one needs to stand in the table; with less it stands below."""


@click.command()
@with_settings
@click.option("--live", is_flag=True, help="Also ask every configured provider, once whole and once streamed.")
@click.option("-m", "--model", "models", multiple=True, help="With --live: try this model or set alone; once for each.")
@click.option("--provider", "providers", multiple=True, help="With --live: try this provider alone; once for each.")
@click.option(
    "--timeout",
    "timeout_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, 600, min_open=True),
    help="With --live: seconds for each provider.",
)
@click.option("--json", "as_json", is_flag=True, help="With --live: print what was found as JSON.")
def check(
    config_file: Path | None,
    env_file: Path | None,
    live: bool,
    models: tuple[str, ...],
    providers: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
) -> None:
    """Check the configuration; every fault is named.

    With --live: is each provider reachable, its key accepted, its model known, do streams work, is usage reported?
    Exits with 0 if all that were tried work, 1 if some do not, 2 if nothing could be tried.
    """
    if not live and (models or providers or as_json):
        raise click.UsageError("--model, --provider and --json go with --live")
    settings = settings_of(config_file, env_file)
    sys.exit(asyncio.run(_check(settings, models, providers, timeout_s, as_json) if live else _said(settings)))


async def _said(settings: Settings) -> int:
    async with open_dispatcher(settings):  # what its adapters find wrong is said
        click.echo(_summary(settings))
    return ALL_ANSWERED


def _summary(settings: Settings) -> str:
    catalogue = Catalogue(settings)
    ready = sum(is_ready(model, catalogue) for model in catalogue)
    counts = f"{len(settings.providers)} providers, {len(settings.models)} models ({ready} ready)"
    return f"{', '.join(settings.files)}: valid; {counts}"


async def _check(settings: Settings, models: Sequence[str], providers: Sequence[str], timeout_s: float, as_json: bool) -> int:
    """Tries the providers and says what was found; the exit code."""
    async with open_dispatcher(settings) as dispatcher:
        click.echo(_summary(settings), err=as_json)
        work = _trials(settings, models, providers)
        if others := sum(settings.providers[trial.provider].adapter != "ngram" for trial in work):
            many = f"{others} provider{'' if others == 1 else 's'}"
            click.echo(f"asking {many}, twice each and a few words only; that may cost a fraction of a cent", err=True)
        console = Console(stderr=as_json)
        with console.status("waiting for the answers") if console.is_terminal else nullcontext():
            findings = await tried(dispatcher, work, timeout_s)
    if as_json:
        print_json({"findings": [{**asdict(finding), "well": finding.well} for finding in findings]})
    else:
        show(Console(), findings)
    asked = [finding for finding in findings if finding.tried]
    return ALL_ANSWERED if asked and all(finding.well for finding in asked) else SOME_FAILED


def _trials(settings: Settings, models: Sequence[str], providers: Sequence[str]) -> list[Trial]:
    catalogue = Catalogue(settings)
    names = [member for name in models for member in catalogue.members(name) or (name,)]
    for name in names:
        if catalogue.find(name) is None:
            raise click.ClickException(catalogue.unknown(name).message)
    for name in providers:
        if name not in settings.providers:
            known = did_you_mean(name, settings.providers) or f"; known: {', '.join(settings.providers)}"
            raise click.ClickException(f"unknown provider `{name}`{known}")
    if found := trials(catalogue, settings.providers, names, providers):
        return found
    raise click.ClickException("no provider is ready; `fanout init` asks for what they need")


def show(console: Console, findings: Sequence[Finding]) -> None:
    """The findings as a table, those that need something done last."""
    ordered = sorted(findings, key=lambda finding: (not finding.tried, not finding.well))
    rows = [cells(finding) for finding in ordered]
    widths = [max(map(len, column)) + 2 for column in zip(COLUMNS, *rows, strict=True)]
    below = console.is_terminal and console.width < sum(widths[:-1]) + LEAST_FOR_ADVICE
    columns, shown = (COLUMNS[:-1], [row[:-1] for row in rows]) if below else (COLUMNS, rows)
    side_by_side.show_table(console, columns, shown, right=("time", "cost"))
    notes = [f"{finding.provider}: {side_by_side.line(finding.next)}" for finding in ordered if finding.next] if below else []
    if any("?" in row for row in rows):
        notes.append("?: not known, because something before it failed")
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def cells(finding: Finding) -> tuple[str, ...]:
    """A row of the table."""
    key = "none" if not finding.needs_key and finding.key_accepted is None else ANSWERS[finding.key_accepted]
    flags = (finding.reachable, finding.model_known, finding.streams)
    reachable, known, streams = ("" if not finding.tried else ANSWERS[flag] for flag in flags)
    usage = {(True, False): "whole only", (False, True): "streamed only"}.get(
        (finding.usage_whole is True, finding.usage_streamed is True) if finding.usage_streamed is not None else (False, False),
        ANSWERS[finding.reports_usage],
    )
    return (
        finding.provider,
        finding.model or "",
        reachable,
        key if finding.tried else "",
        known,
        streams,
        usage if finding.tried else "",
        f"{finding.total_s:.2f} s" if finding.total_s is not None else "",
        _cost(finding),
        side_by_side.line(finding.next or "ready"),
    )


def _cost(finding: Finding) -> str:
    if finding.cost_usd is None:
        return "?" if finding.reachable and finding.total_s is not None else ""
    return side_by_side.money(finding.cost_usd)
