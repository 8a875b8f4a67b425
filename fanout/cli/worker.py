"""`fanout worker`: run the jobs of a store that others share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

import fanout
from fanout.cli.completion import complete_providers
from fanout.cli.options import with_settings
from fanout.cli.serve import greet
from fanout.cli.shared_store import load_sharing_settings, name_store, url_option
from fanout.config.settings import Settings
from fanout.core.authorities import without_authorities
from fanout.core.errors import ConfigError, Fault
from fanout.core.lean_imports import import_lean_libraries
from fanout.core.suggestions import did_you_mean

MAX_SHOWN_ACCOUNTS = 8


@click.command()
@with_settings
@url_option
@click.option(
    "--accounts",
    help="Providers whose jobs it takes, with commas; by default all that are ready here.",
    shell_complete=complete_providers,
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address for --port.")
@click.option("--port", type=click.IntRange(0, 65535), help="Serve /livez, /readyz and /metrics there; 0 takes a free one.")
def worker(
    config_file: Path | None, env_file: Path | None, url: str | None, accounts: str | None, host: str, port: int | None
) -> None:
    """Run the jobs of a store that others share, until SIGTERM: then what is not sent is left to others at once.

    Jobs come from `fanout serve` and its API; those of `fanout batch run` stay with their command. A URL on a command line
    can be seen by every user of the machine: FANOUT_STORE and PGPASSWORD cannot.
    """
    # Imported only here: its help needs none of the server.
    import_lean_libraries()
    from fanout.observability import logs

    with without_authorities():
        from fanout.server import app
    from fanout.server.role import Role

    load = partial(load_sharing_settings, config_file, env_file, url)
    settings = load()
    role = Role("worker", shares_store=True, reads_backlog=port is not None, accounts=_parse_accounts(accounts, settings))
    logs.configure(settings.environment.log_level, settings.environment.log_format)

    def begin(address: str) -> None:
        taken = role.list_accounts(settings) or ()
        logs.log.info("worker.joined", store=name_store(settings), accounts=list(taken), address=address or None)
        greet(compose_greeting(name_store(settings), taken, address), address)

    asyncio.run(app.serve(settings, host, port, begin, load, role))


def compose_greeting(store: str, accounts: Sequence[str], address: str) -> str:
    """Return the text printed once the worker has joined."""
    more = f" and {len(accounts) - MAX_SHOWN_ACCOUNTS} more" if len(accounts) > MAX_SHOWN_ACCOUNTS else ""
    lines = [
        f"Fanout {fanout.__version__} works on the jobs of {store}",
        f"accounts: {', '.join(accounts[:MAX_SHOWN_ACCOUNTS])}{more}",
        f"health: {address}/readyz, metrics: {address}/metrics" if address else "",
    ]
    return "\n".join(filter(None, lines))


def _parse_accounts(given: str | None, settings: Settings) -> tuple[str, ...]:
    """Return the accounts that are named; raise `ConfigError` with every one that there is not, or that lacks a key."""
    if given is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    known = settings.providers
    faults = [Fault("--accounts", "names no account")] if not names else []
    for name in names:
        if name not in known:
            suggestion = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            faults.append(Fault("--accounts", f"unknown provider `{name}`{suggestion}"))
        elif lacking := known[name].lacks():
            faults.append(Fault("--accounts", f"`{name}` needs {' and '.join(f'`{variable}`' for variable in lacking)}"))
    if faults:
        raise ConfigError("command line", faults)
    return names
