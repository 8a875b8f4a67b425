"""`fanout init --yes`: no questions; values come from the environment or from standard input."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from fanout.cli.init.draft import Draft
from fanout.cli.init.local_servers import find_local_servers
from fanout.cli.init.requirements import Requirement, classify_provider, is_complete, list_configurable, list_requirements
from fanout.cli.output import echo, format_usd
from fanout.cli.tables import SafeConsole
from fanout.config.env_file import parse_env_file
from fanout.core.given_text import trim_value
from fanout.core.shown_text import to_single_line

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.probe.diagnosis import Finding

ENV_LINE = re.compile(r"(export )?[A-Z][A-Z0-9]*_\w*\s*=[^=]")
"""Start of a `NAME=value` line. A bare key may hold `=` too, at its end or doubled."""


def set_up(draft: Draft, names: Sequence[str], live: bool, timeout_s: float) -> bool:
    """Keep these providers, or all whose values are set, in the draft if they work; return whether all do.

    Raises:
        UsageError: a value is missing or malformed.
    """
    names = names or [name for name in list_configurable(draft.providers) if is_complete(draft.providers[name], draft.environ)]
    if not names:
        raise click.UsageError("no provider's variables are set: name one with --provider, and give its key")
    _find_addresses(draft, names)
    required = [item for name in names for item in list_requirements(draft.providers[name]) if not item.is_optional]
    missing = [item for item in required if not item.find_variable(draft.environ)]
    environ = {**draft.environ, **(_read_pipe(missing) if missing else {})}
    # Check every value before the first call: a typing error should not cost money.
    entered = {name: _pick_values(environ, name, list_requirements(draft.providers[name])) for name in names}
    # A provider whose models are unknown is kept: nothing is known against its key.
    good = True
    for name, values in entered.items():
        finding = try_provider(draft.with_values(values), name, None, timeout_s) if live else None
        if finding and finding.wants_model:
            echo(f"{name}: not tried, because none of its models is known")
        if finding is None or finding.is_well or finding.wants_model:
            draft.keep(name, values, finding.model if finding else None)
        else:
            good = False
    return good


def try_provider(draft: Draft, name: str, model: str | None, timeout_s: float) -> Finding:
    """Call a provider, print the result in one line, and return the finding."""
    from fanout.dispatch.dispatcher import open_dispatcher
    from fanout.probe.probe import Trial, run_trials

    async def run_trial() -> Finding:
        async with open_dispatcher(draft.load_settings()) as dispatcher:
            (found,) = await run_trials(dispatcher, [Trial(name, model, is_explicit=True)], timeout_s)
        return found

    console = SafeConsole()
    with console.status(f"trying {name}") if console.is_terminal else nullcontext():
        finding = asyncio.run(run_trial())
    if not finding.wants_model:
        echo(_summarize(finding))
    return finding


def _summarize(finding: Finding) -> str:
    if not finding.is_well:
        return f"{finding.provider}: {to_single_line(finding.next)}"
    cost = f", {format_usd(finding.cost_usd)}" if finding.cost_usd is not None else ""
    note = f"; {to_single_line(finding.next)}" if finding.next else ""
    return f"{finding.provider}: works: `{finding.model}` answers and streams, {finding.total_s:.1f} s{cost}{note}"


def _find_addresses(draft: Draft, names: Sequence[str]) -> None:
    """Set the addresses that are configured, or at which a server on this machine answers."""
    for name in names:
        for item in list_requirements(draft.providers[name]):
            if item.is_address and not item.find_variable(draft.environ) and (known := draft.providers[name].base_url):
                draft.environ[item.variable] = known
    incomplete = {
        name: draft.providers[name]
        for name in names
        if classify_provider(draft.providers[name]) == "server" and not is_complete(draft.providers[name], draft.environ)
    }
    for name, server in (asyncio.run(find_local_servers(incomplete)) if incomplete else {}).items():
        draft.environ[str(incomplete[name].row.base_url_env)] = server.address


def _pick_values(environ: Mapping[str, str], name: str, requirements: Sequence[Requirement]) -> dict[str, str]:
    values = {}
    for item in requirements:
        variable = item.find_variable(environ)
        if variable is None and not item.is_optional:
            raise click.UsageError(f"`{name}` needs {item.variable}: it is neither set nor on standard input")
        if variable:
            values[variable] = environ[variable].strip()
            if fault := item.find_fault(values[variable]):
                raise click.UsageError(f"{variable}: {fault}")
    return values


def _read_pipe(missing: Sequence[Requirement]) -> dict[str, str]:
    """Read `NAME=value` lines from standard input, or one bare key if exactly one value is missing."""
    if not sys.stdin or sys.stdin.isatty():
        return {}
    content = sys.stdin.buffer.read()
    lines = [line for text in content.decode(errors="replace").split("\n") if (line := trim_value(text))]
    if len(lines) == 1 and len(missing) == 1 and not ENV_LINE.match(lines[0]):
        return {missing[0].variable: lines[0]}
    return parse_env_file("standard input", content)
