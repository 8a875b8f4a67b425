"""`fanout serve`: run the HTTP API."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

import fanout
from fanout.cli.options import load_settings, with_settings
from fanout.cli.tables import SafeConsole, echo
from fanout.config.catalogue import Catalogue
from fanout.config.settings import Settings
from fanout.observability import logs
from fanout.observability.logs import log
from fanout.server import app


@click.command()
@with_settings
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; any but a loopback one requires FANOUT_API_KEYS."
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def serve(config_file: Path | None, env_file: Path | None, host: str, port: int) -> None:
    """Serve the HTTP API."""
    settings = load_settings(config_file, env_file)
    logs.configure(settings.environment.log_level, settings.environment.log_format)
    console = SafeConsole()
    width = console.width if console.is_terminal else None

    def greet(address: str) -> None:
        try:
            echo(compose_greeting(address, settings, width))
            sys.stdout.flush()  # a pipe buffers, and scripts wait for this line
        except (OSError, AttributeError) as error:  # full or closed: no reason not to serve
            log.warning("server.greeting_failed", address=address, reason=getattr(error, "strerror", None) or "it is closed")

    asyncio.run(app.serve(settings, host, port, greet))


def compose_greeting(address: str, settings: Settings, width: int | None) -> str:
    """Return the text printed once the server listens: what is missing, what is ready, and a request to try.

    It is wrapped to `width` columns; `None`: not at all.
    """
    catalogue, today = Catalogue(settings), datetime.now(UTC).date()
    names: dict[str, list[str]] = {provider: [] for provider in settings.providers}
    for model in catalogue:
        if not catalogue.refuse_retired(model, today):
            names[model.provider].append(model.name)
    missing = {name: " and ".join(provider.lacks()) for name, provider in settings.providers.items() if provider.lacks()}
    ready = [name for provider, models in names.items() if provider not in missing for name in models]
    of_models = [f"{variables} for {_shorten(names[provider])}" for provider, variables in missing.items() if names[provider]]
    of_prefixes = [f"{variables} for {provider}/…" for provider, variables in missing.items() if not names[provider]]
    key = " -H 'Authorization: Bearer <key>'" if settings.environment.api_keys else ""
    body = {"model": ready[:3] or ["<provider>/<model>"], "prompt": "The return statement", "max_tokens": 30}
    paragraphs = [
        *(_fill("to set:", text, width) for text in of_models),
        *([_fill("to set:", ", ".join(of_prefixes), width)] if of_prefixes else []),
        _fill("ready:", _shorten(ready, 12) or "no model", width),
        f"Fanout {fanout.__version__} listens on {address}; to try it:",
        f"curl {address}/v1/completion{key} -H 'Content-Type: application/json' -d '{json.dumps(body)}'",
    ]
    return "\n".join(paragraphs)


def _shorten(names: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _fill(title: str, text: str, width: int | None) -> str:
    # Names of models and variables stay whole: they are there to be copied.
    pad, width = " " * 8, width or sys.maxsize
    return textwrap.fill(
        text, width, initial_indent=f"{title:8}", subsequent_indent=pad, break_long_words=False, break_on_hyphens=False
    )
