"""`fanout models`: the models that can be called, and what the others lack."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from fanout.cli.options import is_ready, load_settings, print_json, with_settings
from fanout.cli.tables import SafeConsole, print_table
from fanout.config.catalogue import Catalogue, Model
from fanout.rendering.model import render_models


@click.command()
@with_settings
@click.option("--ready", is_flag=True, help="Only those that can be called now.")
@click.option("--json", "as_json", is_flag=True, help="Print what `GET /v1/models` would return.")
def models(config_file: Path | None, env_file: Path | None, ready: bool, as_json: bool) -> None:
    """List the models: ready, or what is missing."""
    catalogue = Catalogue(load_settings(config_file, env_file))
    listed = sorted(catalogue, key=lambda model: not is_ready(model, catalogue))
    listed = [model for model in listed if not ready or is_ready(model, catalogue)]
    if as_json:
        print_json(render_models(listed, catalogue))
        return
    rows = [(model.name, model.provider, model.kind, _context(model), _describe_state(model, catalogue)) for model in listed]
    print_table(SafeConsole(), ("model", "provider", "kind", "context", "state"), rows, right=("context",))


def _context(model: Model) -> str:
    return str(model.row.max_context_length or "") if model.row else ""


def _describe_state(model: Model, catalogue: Catalogue) -> str:
    ends = model.row.deprecated_on if model.row else None
    if catalogue.refuse_retired(model, datetime.now(UTC).date()):
        return f"shut down on {ends}"
    lacks = catalogue.lacks(model)
    return (f"needs {' and '.join(lacks)}" if lacks else "ready") + (f", until {ends}" if ends else "")
