"""`fanout init`: asks which providers one has, tries each, and writes what the other commands then find."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fanout.cli.init import local_servers
from fanout.cli.init.draft import Draft
from fanout.cli.init.local_servers import Server
from fanout.cli.init.requirements import TITLES, Need, group, needs, set_in
from fanout.cli.init.unattended import is_set, listed, tried, unattended
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED
from fanout.config.catalogue import Catalogue
from fanout.core.suggestions import did_you_mean
from fanout.probe.diagnosis import Finding

QUESTIONS = (
    "`fanout init` asks questions, and there is no terminal to ask them on: name the providers, `fanout init --yes --provider"
    " openai`; keys are then taken from the environment, or from standard input as `NAME=value` lines"
)


@click.command()
@click.option("--provider", "names", multiple=True, help="A provider that you have; once for each. Without: you are asked.")
@click.option("--yes", is_flag=True, help="Ask nothing: keys come from the environment or from standard input.")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="Where keys go; by default keys.env in your configuration folder."
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Your providers.json; by default in the same folder."
)
@click.option("--live/--no-live", default=True, show_default=True, help="Try each provider at once.")
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 600, min_open=True),
    help="Seconds for each provider's trial.",
)
def init(
    names: tuple[str, ...], yes: bool, env_file: Path | None, config_file: Path | None, live: bool, timeout_s: float
) -> None:
    """Set up your providers: takes their keys, tries each, writes a file of keys and a providers.json of your own.

    Nothing is written before you have seen what, and no key is ever shown.
    Exits with 0 if every provider that was named works, 1 if some do not.
    """
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(QUESTIONS)
    draft = Draft.begin(env_file, config_file)
    for name in names:
        if name not in draft.providers or not needs(draft.providers[name]):
            raise click.UsageError(f"--provider: {_unknown(name, listed(draft.providers))}")
    good = unattended(draft, names, live, timeout_s) if yes else _attended(draft, names, live, timeout_s)
    changes = draft.changes()
    for line in changes.told:
        click.echo(line)
    if changes.told and (yes or click.confirm("write this?", default=True)):
        for line in changes.write():
            click.echo(line)
        click.echo(draft.farewell())
    else:
        click.echo("nothing was written" if changes.told or not good else "nothing to write: it is all there already")
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


def _attended(draft: Draft, names: Sequence[str], live: bool, timeout_s: float) -> bool:
    """The dialogue; whether every provider that was kept works."""
    found = asyncio.run(local_servers.running(draft.providers))
    good = True
    for name in names or _asked_which(draft, found):
        good &= _took_in(draft, name, found.get(name), live, timeout_s)
    if draft.models:
        _ask_set(draft)
    return good


def _asked_which(draft: Draft, found: Mapping[str, Server]) -> list[str]:
    """The providers that the user has."""
    known = listed(draft.providers)
    _show_list(draft, known, found)
    default = [name for name in known if name in found or is_set(draft.providers[name], draft.environ)]
    while True:
        told = click.prompt("which do you have? (numbers or names, with commas)", default=", ".join(default) or None)
        words = [word for part in str(told).split(",") if (word := part.strip())]
        chosen = [known[int(word) - 1] if word.isdigit() and 0 < int(word) <= len(known) else word for word in words]
        unknown = [word for word in chosen if word not in known]
        if chosen and not unknown:
            return list(dict.fromkeys(chosen))
        for word in unknown:
            click.echo(_unknown(word, known))


def _unknown(word: str, known: Sequence[str]) -> str:
    return f"unknown provider `{word}`{did_you_mean(word, known) or '; known: ' + ', '.join(known)}"


def _show_list(draft: Draft, known: Sequence[str], found: Mapping[str, Server]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    shown = None
    for number, name in enumerate(known, 1):
        provider = draft.providers[name]
        if (title := group(provider)) and title != shown:
            table.add_row("", Text(TITLES[title], style="bold"), "")
            shown = title
        wants = ", ".join(need.variable for need in needs(provider) if not need.optional)
        if name in found:
            state = Text(f"runs at {found[name].address}", style="green")
        else:
            state = Text(f"{wants} is set" if is_set(provider, draft.environ) else wants)
        table.add_row(Text(str(number), justify="right"), Text(name), state)
    Console().print(table)


def _took_in(draft: Draft, name: str, server: Server | None, live: bool, timeout_s: float) -> bool:
    """Asks for what one provider wants until it works, is kept all the same or is skipped; whether it works."""
    click.echo(f"\n{name}")
    again = False
    while True:
        values = _asked_for(draft, name, server, again)
        if values is None:
            click.echo("nothing was entered: skipped")
            return True
        finding = _tried_here(draft.with_values(name, values), name, timeout_s) if live else None
        if finding is None or finding.well:
            draft.keep(name, values, finding.model if finding else None)
            return True
        answer = click.prompt(
            "[e]nter it again, [k]eep it all the same, [s]kip it?",
            type=click.Choice(["e", "k", "s"]),
            default="k" if finding.wants_model else "e",
            show_choices=False,
        )
        if answer == "k":
            draft.keep(name, values, finding.model)
        if answer != "e":
            return False
        again = True


def _asked_for(draft: Draft, name: str, server: Server | None, again: bool) -> dict[str, str] | None:
    """What one provider wants; without what is set already and used as it is. `None`: the user has it not."""
    values: dict[str, str] = {}
    for need in needs(draft.providers[name]):
        place = set_in(need, draft.environ)
        if place and not again and click.confirm(f"{place} is set in {draft.where(place)}; use it as it is?", default=True):
            continue
        value = _value(need, _default(draft, name, need, server))
        if value:
            values[need.variable] = value
        elif not need.optional:
            return None
    return values


def _default(draft: Draft, name: str, need: Need, server: Server | None) -> str:
    """What a value most likely is; never a secret."""
    if need.secret:
        return ""
    known = draft.environ.get(need.variable, "")
    if need.is_address:
        return (server and server.address) or known or draft.providers[name].base_url or local_servers.USUAL.get(name, "")
    return known


def _value(need: Need, default: str) -> str:
    """One value, asked for until it can be one; empty where there is none."""
    while True:
        nothing = " (nothing: none)" if need.optional else "" if default else " (nothing: skip)"
        told = click.prompt(need.variable + nothing, hide_input=need.secret, default=default, show_default=bool(default))
        value = str(told).strip()
        wrong = need.wrong(value) if value else None
        if value and not wrong and need.secret:
            click.echo(f"{len(value)} characters")
        if not wrong:
            return value
        click.echo(f"that is not it: {wrong}")


def _tried_here(trial: Draft, name: str, timeout_s: float) -> Finding:
    """A trial; where no model is known, the user is asked for one."""
    finding = tried(trial, name, None, timeout_s)
    while finding.wants_model:
        model = click.prompt("a model to try, as it names it (nothing: none)", default="", show_default=False).strip()
        if not model:
            break
        finding = tried(trial, name, f"{name}/{model.removeprefix(f'{name}/')}", timeout_s)
    return finding


def _ask_set(draft: Draft) -> None:
    """Which models `mine` stands for."""
    default = ", ".join(draft.mine())
    while True:
        told = click.prompt("\nwhich models shall `mine` stand for? (names, with commas)", default=default)
        chosen = list(dict.fromkeys(word for part in str(told).split(",") if (word := part.strip())))
        catalogue = Catalogue(draft.settings())
        unknown = [word for word in chosen if catalogue.find(word) is None]
        if chosen and not unknown:
            draft.chosen = tuple(chosen)
            return
        for word in unknown:
            click.echo(catalogue.unknown(word).message)
