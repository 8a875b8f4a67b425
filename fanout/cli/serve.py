"""`fanout serve`: the HTTP API."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console

from fanout.cli import side_by_side
from fanout.cli.options import settings_of, with_settings
from fanout.observability import logs
from fanout.server import app


@click.command()
@with_settings
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; other than this machine's own, FANOUT_API_KEYS must be set.",
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def serve(config_file: Path | None, env_file: Path | None, host: str, port: int) -> None:
    """Serve the HTTP API."""
    settings = settings_of(config_file, env_file)
    logs.configure(settings.environment.log_level, settings.environment.log_format)
    console = Console()
    width = console.width if console.is_terminal else None

    def started(address: str) -> None:
        click.echo(side_by_side.greeting(address, settings, width))
        sys.stdout.flush()  # who waits for this line may read it through a pipe

    try:
        asyncio.run(app.serve(settings, host, port, started))
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition(": ")[2]
        raise click.ClickException(f"cannot listen on {host}:{port}: {reason}; `--port` takes another, 0 a free one") from error
