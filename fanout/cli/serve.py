"""`fanout serve`: run the HTTP API."""

from __future__ import annotations

import asyncio
import gc
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

import fanout
from fanout.cli.options import load_settings, with_settings
from fanout.cli.output import echo
from fanout.config.catalogue import Catalogue
from fanout.config.environment import MAX_WORKERS
from fanout.config.settings import Settings
from fanout.core.authorities import without_authorities
from fanout.core.lean_imports import import_lean_libraries

NO_WORK = "jobs wait here for another process: `fanout worker` runs them"


@click.command()
@with_settings
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; any but a loopback one requires FANOUT_API_KEYS."
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--no-work", is_flag=True, help="Take and show jobs, but run none: `fanout worker` does (FANOUT_WORK=off).")
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    help="Processes that share the port, the store and the limits.  [default: FANOUT_WORKERS, or 1]",
)
def serve(config_file: Path | None, env_file: Path | None, host: str, port: int, no_work: bool, workers: int | None) -> None:
    """Serve the HTTP API."""
    # What is imported and made until it serves stays: looking for garbage in it takes some 20 ms.
    gc.disable()
    # Imported only here: its help needs none of the server.
    import_lean_libraries()
    from fanout.observability import logs

    with without_authorities():
        from fanout.server import app

    variables = {"FANOUT_WORK": "off"} if no_work else {}
    if workers is not None:
        variables["FANOUT_WORKERS"] = str(workers)
    load = partial(load_server_settings, config_file, env_file, variables)
    settings = load()
    level, form = settings.environment.log_level, settings.environment.log_format

    def tell(address: str) -> None:
        greet(compose_greeting(address, settings), address)

    if settings.environment.workers == 1:
        logs.configure(level, form)
        asyncio.run(app.serve(settings, host, port, tell, load))
        return
    from fanout.server.role import Role
    from fanout.server.workers.starting import supervise

    seat = supervise(settings, host, port, tell)  # here and below we are one of the workers
    logs.configure(level, form, worker=seat.number)
    role = Role(shares_store=True, reads_backlog=seat.is_leader)
    asyncio.run(app.serve(seat.settings, host, port, seat.report_ready, load, role, seat))


def load_server_settings(config_file: Path | None, env_file: Path | None, variables: Mapping[str, str]) -> Settings:
    """Load the configuration of a server, of which each of several workers has its part; `variables` come first.

    Raises:
        ConfigError: with every fault.
    """
    settings = load_settings(config_file, env_file, **variables)
    return replace(settings, environment=settings.environment.divide())


def greet(text: str, address: str) -> None:
    """Print that a process has begun its work, at an address or at none."""
    try:
        echo(text)
        sys.stdout.flush()  # a pipe buffers, and scripts wait for this line
    except (OSError, AttributeError) as error:  # full or closed: no reason not to serve
        from fanout.observability.logs import log

        log.warning("server.greeting_failed", address=address, reason=getattr(error, "strerror", None) or "it is closed")


def compose_greeting(address: str, settings: Settings) -> str:
    """Return the text printed once the server listens: at most six lines, of which the last can be copied as it is."""
    catalogue, today = Catalogue(settings), datetime.now(UTC).date()
    offered = [model for model in catalogue if not catalogue.refuse_after_shutdown(model, today)]
    ready = [model.name for model in offered if not catalogue.lacks(model)]
    waiting = sum(bool(provider.lacks()) for provider in settings.providers.values())
    key = " -H 'Authorization: Bearer <key>'" if settings.environment.api_keys else ""
    body = {"model": ready[:3] or ["<provider>/<model>"], "prompt": "The return statement", "max_tokens": 30}
    lines = [
        f"Fanout {fanout.__version__} listens on {address}; open it in a browser",
        f"ready: {_shorten(ready) or 'no model'}",
        _describe_waiting(waiting) if waiting else "",
        NO_WORK if settings.environment.work == "off" else "",
        _explain_activation(),
        f"try: curl {address}/v1/completion{key} -H 'Content-Type: application/json' -d '{json.dumps(body)}'",
    ]
    return "\n".join(filter(None, lines))


def _describe_waiting(count: int) -> str:
    waiting = "1 provider waits" if count == 1 else f"{count} providers wait"
    return f"{waiting} for a key: `fanout models` shows the variables, `fanout init` sets them"


def _explain_activation() -> str:
    """Return the line for those whose shell does not find `fanout`: `./scripts/serve` installs it into an environment."""
    script = Path(sys.prefix) / "bin" / "activate"
    if sys.prefix == sys.base_prefix or shutil.which("fanout") or not script.exists():
        return ""
    path = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return f"`. {shlex.quote(str(path))}` lets any other shell find `fanout`"


def _shorten(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
