"""What `fanout init` does without a question: trials, and values from the environment or standard input."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import click
from rich.console import Console

from fanout.cli import side_by_side
from fanout.cli.init import local_servers
from fanout.cli.init.draft import Draft
from fanout.cli.init.requirements import TITLES, Need, group, needs, set_in
from fanout.config.environment import parsed
from fanout.config.settings import ProviderSettings
from fanout.probe.diagnosis import Finding


def listed(providers: Mapping[str, ProviderSettings]) -> list[str]:
    """The providers that want something, group by group."""
    return [name for title in TITLES for name, provider in providers.items() if group(provider) == title]


def is_set(provider: ProviderSettings, environ: Mapping[str, str]) -> bool:
    """Whether everything that must be set is."""
    return all(need.optional or set_in(need, environ) or (need.is_address and provider.base_url) for need in needs(provider))


def tried(draft: Draft, name: str, model: str | None, timeout_s: float) -> Finding:
    """One trial, and what it showed in one line."""
    console = Console()
    with console.status(f"trying {name}") if console.is_terminal else nullcontext():
        finding = asyncio.run(draft.tried(name, model, timeout_s))
    if not finding.wants_model:
        click.echo(summary(finding))
    return finding


def summary(finding: Finding) -> str:
    """What a trial showed, in one line."""
    if not finding.well:
        return f"{finding.provider}: {side_by_side.line(finding.next)}"
    cost = f", {side_by_side.money(finding.cost_usd)}" if finding.cost_usd is not None else ""
    note = f"; {side_by_side.line(finding.next)}" if finding.next else ""
    return f"{finding.provider}: works: `{finding.model}` answers and streams, {finding.total_s:.1f} s{cost}{note}"


def unattended(draft: Draft, names: Sequence[str], live: bool, timeout_s: float) -> bool:
    """Without a question; whether every provider works. One that does not is not kept."""
    names = names or [name for name in listed(draft.providers) if is_set(draft.providers[name], draft.environ)]
    if not names:
        raise click.UsageError("no provider's variables are set: name one with --provider, and give its key")
    _find_addresses(draft, names)
    wanted = [
        need for name in names for need in needs(draft.providers[name]) if not need.optional and not set_in(need, draft.environ)
    ]
    given = {**draft.environ, **(_piped(wanted) if wanted else {})}
    entered = {name: _values_in(given, name, needs(draft.providers[name])) for name in names}
    good = True
    for name, values in entered.items():
        finding = tried(draft.with_values(name, values), name, None, timeout_s) if live else None
        if finding and finding.wants_model:
            click.echo(f"{name}: not tried, for no model of it is known here")
        if finding is None or finding.well or finding.wants_model:
            draft.keep(name, values, finding.model if finding else None)
        else:
            good = False
    return good


def _find_addresses(draft: Draft, names: Sequence[str]) -> None:
    """Servers whose address is not set are looked for on this machine."""
    for name in names:
        for need in needs(draft.providers[name]):
            if need.is_address and not set_in(need, draft.environ) and (known := draft.providers[name].base_url):
                draft.environ[need.variable] = known
    lacking = {
        name: draft.providers[name]
        for name in names
        if group(draft.providers[name]) == "server" and not is_set(draft.providers[name], draft.environ)
    }
    for name, server in (asyncio.run(local_servers.running(lacking)) if lacking else {}).items():
        draft.environ[str(lacking[name].row.base_url_env)] = server.address


def _values_in(given: Mapping[str, str], name: str, wanted: Sequence[Need]) -> dict[str, str]:
    """A provider's values where they were given."""
    values = {}
    for need in wanted:
        place = set_in(need, given)
        if place is None and not need.optional:
            raise click.UsageError(f"`{name}` needs {need.variable}: it is neither set nor on standard input")
        if place:
            values[place] = given[place].strip()
            if wrong := need.wrong(values[place]):
                raise click.UsageError(f"{place}: {wrong}")
    return values


def _piped(wanted: Sequence[Need]) -> dict[str, str]:
    """What standard input gives: `NAME=value` lines, or one bare key where one is wanted."""
    if not sys.stdin or sys.stdin.isatty():
        return {}
    content = sys.stdin.buffer.read()
    bare = [line.strip() for line in content.decode(errors="replace").split("\n") if line.strip()]
    if len(bare) == 1 and len(wanted) == 1 and not re.match(r"(export )?[A-Z][A-Z0-9]*_\w*\s*=[^=]", bare[0]):
        return {wanted[0].variable: bare[0]}
    return parsed("standard input", content)
