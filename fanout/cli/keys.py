"""`fanout keys`: the user's own file of providers' keys, which every command reads, and keys of a server's callers."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from fanout.cli import caller_keys, private_files
from fanout.cli.ask.location import AskLocation
from fanout.cli.completion import complete_providers
from fanout.cli.init.draft import set_variables
from fanout.cli.init.requirements import list_requirements
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole, print_table
from fanout.config.env_file import KEYS_FILE_NAME, add_env_file, read_env_file
from fanout.config.environment import find_config_folder
from fanout.config.providers_file import KEY_VARIABLE
from fanout.config.settings import ProviderSettings, load_settings
from fanout.core.suggestions import did_you_mean

ENV_FILE = click.option(
    "--env-file", type=click.Path(path_type=Path), help="Another file; by default keys.env in your configuration folder."
)


@click.group(no_args_is_help=True)
def keys() -> None:
    """Keys for providers, and keys of a server's callers.

    `set` and `path` are about the file of providers' keys. `create`, `show`, `rotate`, `revoke` and `audit` are about callers'
    keys. `list` shows both, without showing any key.
    """


for command in (caller_keys.create, caller_keys.show, caller_keys.rotate, caller_keys.revoke, caller_keys.audit):
    keys.add_command(command)


@keys.command(name="set")
@ENV_FILE
@click.argument("name", metavar="PROVIDER|VARIABLE", shell_complete=complete_providers)
def set_(env_file: Path | None, name: str) -> None:
    """Set the key of a provider, or a variable. It is typed without being shown, or read from a pipe."""
    path = _find_path(env_file)
    environ = add_env_file(path if path.exists() else None, os.environ)
    variable = _find_variable(name, load_settings(None, environ).providers)
    if sys.stdin.isatty():
        value = str(click.prompt(variable, hide_input=True)).strip()
    else:
        # Bounded: a whole file piped in by mistake is not a key.
        value = sys.stdin.buffer.read(65_537).decode(errors="replace").strip()
    if not value:
        raise click.UsageError(f"{variable}: no key was given")
    # A second line would be another variable in the file.
    if len(value.splitlines()) != 1 or not value.isprintable():
        raise click.UsageError(f"{variable}: a key is one line of printable characters; was it pasted whole, and nothing else?")
    # Changed as text, so that comments and the order of the file stay.
    before = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    text, changes = set_variables(before, {variable: value})
    if not changes:
        echo(f"{variable} is set to this value already, in {path}")
        return
    try:
        copy = private_files.write(path, text.encode())
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error
    echo(f"{variable} is set ({len(value)} characters), in {path}" + (f"; the old file is in {copy}" if copy else ""))
    if os.environ.get(variable, "").strip():
        echo(f"note: {variable} is set in the environment, too, which takes precedence", err=True)


def _find_variable(name: str, providers: Mapping[str, ProviderSettings]) -> str:
    """Return the variable that is meant: its own name, or the secret of a provider."""
    if provider := providers.get(name):
        secrets = [item.variable for item in list_requirements(provider) if item.is_secret]
        if secrets:
            return secrets[0]
        raise click.UsageError(f"`{name}` takes no key; `fanout init --provider {name}` asks for what it needs")
    known = {variable for row in providers.values() for variable in row.row.api_key_env}
    if re.fullmatch(KEY_VARIABLE, name) and (name in known or not did_you_mean(name, known)):
        return name
    near = did_you_mean(name, [*providers, *known]) or "; `fanout init` lists the providers"
    raise click.UsageError(f"unknown provider or variable `{name}`{near}")


@keys.command(name="list")
@ENV_FILE
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Your own providers.json.")
@click.option("--server", help="Address of a running server: only its callers' keys, with a key of the role admin.")
def list_(env_file: Path | None, config_file: Path | None, server: str | None) -> None:
    """List providers' keys: the variables of the file, and the providers that each serves; and callers' keys in the store."""
    if not server:
        _list_provider_keys(env_file)
    caller_keys.print_keys(AskLocation(config_file, env_file, server))


def _list_provider_keys(env_file: Path | None) -> None:
    path = _find_path(env_file)
    stored = read_env_file(path) if path.exists() else {}
    providers = load_settings(None, {**os.environ, **stored}).providers
    rows = []
    for variable, value in stored.items():
        users = [name for name, provider in providers.items() if variable in _list_variables(provider)]
        state = (
            "empty"
            if not value.strip()
            else "the environment's takes precedence"
            if os.environ.get(variable, "").strip()
            else "set"
        )
        rows.append((variable, state, ", ".join(users)))
    if rows:
        echo("providers' keys")
        print_table(SafeConsole(), ("variable", "state", "providers"), rows)
    else:
        echo(f"no keys in {path}; `fanout keys set PROVIDER` sets one", err=True)
    # A note only: changing the mode of a file that a team shares would lock the others out.
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        echo(f"note: others can read {path}: `chmod 600` makes it yours alone", err=True)


def _list_variables(provider: ProviderSettings) -> set[str]:
    return {name for item in list_requirements(provider) for name in (item.variable, *item.alternatives)}


@keys.command()
@ENV_FILE
def path(env_file: Path | None) -> None:
    """Print the path of the file."""
    echo(str(_find_path(env_file)))


def _find_path(env_file: Path | None) -> Path:
    if env_file:
        return env_file
    folder = find_config_folder(os.environ)
    if folder is None:
        raise click.UsageError("there is no home folder: name the file, with --env-file")
    return folder / KEYS_FILE_NAME
