"""`fanout check`: validate the configuration and try the providers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from rich.console import Console

from fanout.cli.completion import complete_models, complete_providers
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, is_ready, load_settings, print_json, timeout_option, with_settings
from fanout.cli.output import echo, format_usd
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.shown_text import to_single_line
from fanout.core.suggestions import did_you_mean

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.config.catalogue import Catalogue
    from fanout.config.settings import Settings
    from fanout.probe.diagnosis import Finding
    from fanout.probe.probe import Trial

COLUMNS = ("provider", "model", "reachable", "key", "known", "streams", "usage", "time", "cost", "next")
ANSWERS: Mapping[bool | None, str] = {True: "yes", False: "no", None: "?"}
MAX_DAYS_BEFORE_END = 60
"""From which on a model's end is announced."""
MAX_NAMED_PROVIDERS = 5
MIN_ADVICE_COLUMNS = 30
"""Width below which the advice is printed below the table instead of in its last column."""


@click.command()
@with_settings
@click.option("--live", is_flag=True, help="Also call every configured provider, once whole and once streamed.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    help="With --live: try only this model or set; may be repeated.",
    shell_complete=complete_models,
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    help="With --live: try only this provider; may be repeated.",
    shell_complete=complete_providers,
)
@timeout_option("With --live: seconds for each provider.", 60.0)
@click.option("--json", "as_json", is_flag=True, help="With --live: print the findings as JSON.")
def check(
    config_file: Path | None,
    env_file: Path | None,
    live: bool,
    models: tuple[str, ...],
    providers: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
) -> None:
    """Check the configuration and name every fault.

    With --live: is each provider reachable, its key accepted, its model known, do streams work, is usage reported?
    Exits with 0 if everything that was tried works, 1 if something does not, 2 if nothing could be tried.
    """
    if not live and (models or providers or as_json):
        raise click.UsageError("--model, --provider and --json go with --live")
    settings = load_settings(config_file, env_file)
    sys.exit(asyncio.run(_check_live(settings, models, providers, timeout_s, as_json) if live else _check(settings)))


async def _check(settings: Settings) -> int:
    from fanout.dispatch.dispatcher import open_dispatcher

    async with open_dispatcher(settings):  # raises what the adapters find wrong
        echo(_summarize(settings))
    return ALL_ANSWERED


async def _check_live(
    settings: Settings, models: Sequence[str], providers: Sequence[str], timeout_s: float, as_json: bool
) -> int:
    from fanout.config.settings import EMBEDDED
    from fanout.dispatch.dispatcher import open_dispatcher
    from fanout.probe.probe import run_trials

    async with open_dispatcher(settings) as dispatcher:
        echo(_summarize(settings), err=as_json)  # standard output holds nothing but the JSON
        chosen = _choose_trials(settings, models, providers)
        # The embedded models run in this process and cost nothing.
        if remote := sum(settings.providers[trial.provider].adapter != EMBEDDED for trial in chosen):
            number = f"{remote} provider{'' if remote == 1 else 's'}"
            echo(f"calling {number}, twice each with a few words; this may cost a fraction of a cent", err=True)
        console = SafeConsole(stderr=as_json)
        with console.status("waiting for the answers") if console.is_terminal else nullcontext():
            findings = await run_trials(dispatcher, chosen, timeout_s)
    if as_json:
        print_json({"findings": [{**asdict(finding), "well": finding.is_well} for finding in findings]})
    else:
        print_findings(SafeConsole(), findings)
    results = [finding.is_well for finding in findings if finding.tried]
    return ALL_ANSWERED if results and all(results) else SOME_FAILED


def _summarize(settings: Settings) -> str:
    from fanout.config.catalogue import Catalogue

    catalogue = Catalogue(settings)
    ready = sum(is_ready(model, catalogue) for model in catalogue)
    counts = f"{len(settings.providers)} providers, {len(settings.models)} models ({ready} ready)"
    lines = [f"{', '.join(settings.files)}: valid; {counts}", *settings.notices, *_describe_proxies(settings)]
    if settings.environment.ca_file:
        lines.append(f"certificates of your own: {settings.environment.ca_file}")
    lines += _describe_ends(catalogue, datetime.now(UTC).date())
    return "\n".join(lines)


def _describe_ends(catalogue: Catalogue, today: date) -> Iterator[str]:
    """Yield a line for each model that could be called now and is shut down soon."""
    for model in catalogue:
        row = model.row
        if row is None or row.deprecated_on is None or not is_ready(model, catalogue):
            continue
        if today <= date.fromisoformat(row.deprecated_on) <= today + timedelta(days=MAX_DAYS_BEFORE_END):
            successor = f", its vendor names `{row.successor}` as successor" if row.successor else ""
            yield f"`{model.name}` ends on {row.deprecated_on}{successor}; `fanout replace {model.name}` compares them"


def _describe_proxies(settings: Settings) -> Iterator[str]:
    """Yield a line for each proxy, with the providers whose requests go through it."""
    from fanout.config.proxies import describe_proxy

    users: dict[str, list[str]] = {}
    for name, provider in settings.providers.items():
        address = urlsplit(provider.base_url or "https://unknown.invalid")
        proxy = provider.proxies.find(address.scheme, address.hostname or "", address.port)
        if proxy and provider.adapter != "ngram":
            users.setdefault(describe_proxy(proxy), []).append(name)
    for proxy_address, names in users.items():
        shown = f"{len(names)} providers" if len(names) > MAX_NAMED_PROVIDERS else ", ".join(names)
        yield f"proxy {proxy_address}: {shown}"


def _choose_trials(settings: Settings, models: Sequence[str], providers: Sequence[str]) -> list[Trial]:
    """Return the trials of the models and providers with these names, or of all that are ready.

    Raises:
        ClickException: a name is unknown, or nothing is ready.
    """
    from fanout.config.catalogue import Catalogue
    from fanout.probe.probe import choose_trials

    catalogue = Catalogue(settings)
    names = [member for name in models for member in catalogue.find_set(name) or (name,)]
    for name in names:
        if catalogue.find(name) is None:
            raise click.ClickException(catalogue.refuse_unknown(name).message)
    for name in providers:
        if name not in settings.providers:
            known = did_you_mean(name, settings.providers) or f"; known: {', '.join(settings.providers)}"
            raise click.ClickException(f"unknown provider `{name}`{known}")
    if found := choose_trials(catalogue, settings.providers, names, providers):
        return found
    raise click.ClickException("no provider is ready; `fanout init` asks for what they need")


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print the findings as a table, working providers first."""
    ordered = sorted(findings, key=lambda finding: (not finding.tried, not finding.is_well))
    rows = [to_cells(finding) for finding in ordered]
    widths = [max(map(len, column)) + 2 for column in zip(COLUMNS, *rows, strict=True)]
    is_narrow = console.is_terminal and console.width < sum(widths[:-1]) + MIN_ADVICE_COLUMNS
    shown = len(COLUMNS) - is_narrow
    print_table(console, COLUMNS[:shown], [row[:shown] for row in rows], right=("time", "cost"))
    notes = [f"{finding.provider}: {to_single_line(finding.next)}" for finding in ordered if is_narrow and finding.next]
    if any("?" in row for row in rows):
        notes.append("?: not known, because something before it failed")
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def to_cells(finding: Finding) -> tuple[str, ...]:
    """Return a finding as a row of the table."""
    key = "none" if not finding.needs_key and finding.key_accepted is None else ANSWERS[finding.key_accepted]
    known, streams = ANSWERS[finding.model_known], ANSWERS[finding.streams]
    evidence = (ANSWERS[finding.reachable], key, known, streams, _describe_usage(finding)) if finding.tried else ("",) * 5
    time = f"{finding.total_s:.2f} s" if finding.total_s is not None else ""
    advice = to_single_line(finding.next or "ready")
    return (finding.provider, finding.model or "", *evidence, time, _format_cost(finding), advice)


def _describe_usage(finding: Finding) -> str:
    if finding.usage_streamed is not None and bool(finding.usage_whole) is not finding.usage_streamed:
        return "streamed only" if finding.usage_streamed else "whole only"
    return ANSWERS[finding.reports_usage]


def _format_cost(finding: Finding) -> str:
    if finding.cost_usd is None:
        return "?" if finding.reachable and finding.total_s is not None else ""
    return format_usd(finding.cost_usd)
