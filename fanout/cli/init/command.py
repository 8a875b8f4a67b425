"""`fanout init`: ask for the user's providers, try each, and write the files that the other commands find."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from fanout.cli.completion import complete_providers
from fanout.cli.init import unattended
from fanout.cli.init.draft import Draft
from fanout.cli.init.local_servers import DEFAULT_ADDRESSES, LocalServer, find_local_servers
from fanout.cli.init.requirements import (
    TITLES,
    Requirement,
    classify_provider,
    is_complete,
    list_configurable,
    list_requirements,
)
from fanout.cli.init.unattended import try_provider
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, timeout_option
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole
from fanout.config.catalogue import Catalogue
from fanout.core.given_text import trim_value
from fanout.core.suggestions import did_you_mean

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.probe.diagnosis import Finding

NO_TERMINAL = (
    "`fanout init` asks questions and needs a terminal; without one, name the providers: `fanout init --yes --provider"
    " openai`; keys are then taken from the environment, or from standard input as `NAME=value` lines"
)


@click.command()
@click.option(
    "--provider",
    "names",
    multiple=True,
    help="A provider you have; may be repeated. Without it, questions follow.",
    shell_complete=complete_providers,
)
@click.option("--yes", is_flag=True, help="Ask nothing: take keys from the environment or from standard input.")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="The file for keys; by default keys.env in your configuration folder."
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Your providers.json; by default in the same folder."
)
@click.option("--live/--no-live", default=True, show_default=True, help="Call each provider once to try it.")
@timeout_option("Seconds to try each provider.", 30.0)
def init(
    names: tuple[str, ...], yes: bool, env_file: Path | None, config_file: Path | None, live: bool, timeout_s: float
) -> None:
    """Set up your providers: enter their keys, try each, and write a file of keys and your own providers.json.

    Shows what it would write before it writes anything, and never shows a key.
    Exits with 0 if every provider works, 1 if some do not.
    """
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(NO_TERMINAL)
    draft = Draft.from_files(env_file, config_file)
    for name in names:
        if name not in draft.providers or not list_requirements(draft.providers[name]):
            raise click.UsageError(f"--provider: {_name_unknown(name, list_configurable(draft.providers))}")
    good = unattended.set_up(draft, names, live, timeout_s) if yes else _set_up(draft, names, live, timeout_s)
    summary, files = draft.list_changes()
    for line in summary:
        echo(line)
    if files and (yes or click.confirm("write this?", default=True)):
        for line in draft.write(files):
            echo(line)
        echo(draft.suggest_commands())
    else:
        echo("nothing was written" if files or not good else "nothing to write: it is all there already")
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


def _set_up(draft: Draft, names: Sequence[str], live: bool, timeout_s: float) -> bool:
    servers = asyncio.run(find_local_servers(draft.providers))
    good = True
    for name in names or _ask_providers(draft, servers):
        good &= _add_provider(draft, name, servers.get(name), live, timeout_s)
    if draft.models:
        _ask_set_members(draft)
    return good


def _ask_providers(draft: Draft, servers: Mapping[str, LocalServer]) -> list[str]:
    known = list_configurable(draft.providers)
    _print_providers(draft, known, servers)
    default = [name for name in known if name in servers or is_complete(draft.providers[name], draft.environ)]

    def resolve(word: str) -> str:
        return known[int(word) - 1] if word.isdigit() and 0 < int(word) <= len(known) else word

    return _ask_names(
        "which do you have? (numbers or names, with commas)",
        ", ".join(default) or None,
        lambda word: None if resolve(word) in known else _name_unknown(word, known),
        resolve,
    )


def _ask_names(
    question: str,
    default: str | None,
    find_fault: Callable[[str], str | None],
    resolve: Callable[[str], str] = lambda word: word,
) -> list[str]:
    """Ask for names with commas between them, until each is a known one."""
    while True:
        answer = str(click.prompt(question, default=default))
        words = [word for part in answer.split(",") if (word := part.strip())]
        faults = [fault for word in words if (fault := find_fault(word))]
        if words and not faults:
            return list(dict.fromkeys(map(resolve, words)))
        for fault in faults:
            echo(fault)


def _name_unknown(word: str, known: Sequence[str]) -> str:
    return f"unknown provider `{word}`{did_you_mean(word, known) or '; known: ' + ', '.join(known)}"


def _print_providers(draft: Draft, known: Sequence[str], servers: Mapping[str, LocalServer]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    last_group = None
    for number, name in enumerate(known, 1):
        provider = draft.providers[name]
        if (group := classify_provider(provider)) and group != last_group:
            table.add_row("", Text(TITLES[group], style="bold"), "")
            last_group = group
        required = ", ".join(item.variable for item in list_requirements(provider) if not item.is_optional)
        if name in servers:
            state = Text(f"runs at {servers[name].address}", style="green")
        else:
            state = Text(f"{required} is set" if is_complete(provider, draft.environ) else required)
            if provider.row.key_page:
                state.append(f"  {provider.row.key_page.removeprefix('https://')}", style="dim")
        table.add_row(Text(str(number), justify="right"), Text(name), state)
    SafeConsole().print(table)


def _add_provider(draft: Draft, name: str, server: LocalServer | None, live: bool, timeout_s: float) -> bool:
    """Ask for a provider's values until it works, is kept anyway or is skipped; return whether it works."""
    page = draft.providers[name].row.key_page
    echo(f"\n{name}{f': a key is made at {page}' if page else ''}")
    is_retry = False
    while True:
        values = _ask_values(draft, name, server, is_retry)
        if values is None:
            echo("nothing was entered: skipped")
            return True
        # Tried in a copy: values that do not work must not reach the next provider's trial.
        finding = _try_interactively(draft.with_values(values), name, timeout_s) if live else None
        if finding is None or finding.is_well:
            draft.keep(name, values, finding.model if finding else None)
            return True
        answer = click.prompt(
            "[e]nter it again, [k]eep it anyway, [s]kip it?",
            type=click.Choice(["e", "k", "s"]),
            default="k" if finding.wants_model else "e",  # without a model nothing is known against the key
            show_choices=False,
        )
        if answer == "k":
            draft.keep(name, values, finding.model)
        if answer != "e":
            return False
        is_retry = True


def _ask_values(draft: Draft, name: str, server: LocalServer | None, is_retry: bool) -> dict[str, str] | None:
    """Ask for the values of a provider that are not set; `None`: the user does not have a required one."""
    values: dict[str, str] = {}
    for item in list_requirements(draft.providers[name]):
        variable = item.find_variable(draft.environ)
        question = f"{variable} is set in {draft.locate(variable)}; use it as it is?" if variable else ""
        if question and not is_retry and click.confirm(question, default=True):
            continue
        value = _ask_value(item, _guess_value(draft, name, item, server))
        if value:
            values[item.variable] = value
        elif not item.is_optional:
            return None
    return values


def _guess_value(draft: Draft, name: str, item: Requirement, server: LocalServer | None) -> str:
    if item.is_secret:
        return ""  # a prompt shows its default
    known = draft.environ.get(item.variable, "")
    if item.is_address:
        return (server and server.address) or known or draft.providers[name].base_url or DEFAULT_ADDRESSES.get(name, "")
    return known


def _ask_value(item: Requirement, default: str) -> str:
    """Ask for a value until it is well formed; return an empty text if there is none."""
    while True:
        hint = " (empty: none)" if item.is_optional else "" if default else " (empty: skip)"
        answer = click.prompt(item.variable + hint, hide_input=item.is_secret, default=default, show_default=bool(default))
        value = trim_value(str(answer))
        fault = item.find_fault(value) if value else None
        if value and not fault and item.is_secret:
            echo(f"{len(value)} characters")  # the only way to see whether hidden input was pasted whole
        if not fault:
            return value
        echo(f"not accepted: {fault}")


def _try_interactively(draft: Draft, name: str, timeout_s: float) -> Finding:
    """Try a provider; ask for a model if none is known."""
    finding = try_provider(draft, name, None, timeout_s)
    while finding.wants_model:
        model = click.prompt("a model to try, by the provider's name for it (empty: none)", default="", show_default=False)
        model = model.strip()
        if not model:
            break
        finding = try_provider(draft, name, f"{name}/{model.removeprefix(f'{name}/')}", timeout_s)
    return finding


def _ask_set_members(draft: Draft) -> None:
    catalogue = Catalogue(draft.load_settings())
    members = _ask_names(
        "\nwhich models should `mine` stand for? (names, with commas)",
        ", ".join(draft.list_set_members()),
        lambda word: None if catalogue.find(word) else catalogue.refuse_unknown(word).message,
    )
    draft.chosen = tuple(members)
