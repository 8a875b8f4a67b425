"""`fanout models`: what can be called, and what the rest lacks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from fanout.cli import side_by_side
from fanout.cli.options import is_ready, print_json, settings_of, with_settings
from fanout.config.catalogue import Catalogue, Model
from fanout.rendering.model import render_models


@click.command()
@with_settings
@click.option("--ready", is_flag=True, help="Only those that can be called now.")
@click.option("--json", "as_json", is_flag=True, help="Print what `GET /v1/models` would answer.")
def models(config_file: Path | None, env_file: Path | None, ready: bool, as_json: bool) -> None:
    """List the models: ready, or what is missing."""
    catalogue = Catalogue(settings_of(config_file, env_file))
    listed = [model for model in catalogue if not ready or is_ready(model, catalogue)]
    listed.sort(key=lambda model: not is_ready(model, catalogue))
    if as_json:
        print_json(render_models(listed, catalogue))
        return
    contexts = [str(model.row.max_context_length or "") if model.row else "" for model in listed]
    states = [_state(model, catalogue) for model in listed]
    rows = [(model.name, model.provider, model.kind, *rest) for model, *rest in zip(listed, contexts, states, strict=True)]
    side_by_side.show_table(Console(), ("model", "provider", "kind", "context", "state"), rows, right=("context",))


def _state(model: Model, catalogue: Catalogue) -> str:
    ends = model.row.deprecated_on if model.row else None
    if catalogue.retired(model, datetime.now(UTC).date()):
        return f"shut down on {ends}"
    lacks = catalogue.lacks(model)
    return (f"needs {' and '.join(lacks)}" if lacks else "ready") + (f", until {ends}" if ends else "")
