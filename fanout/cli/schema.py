"""`fanout schema`: the JSON Schema of providers.json, for editors."""

from __future__ import annotations

import json

import click

from fanout.cli.output import echo


@click.command()
def schema() -> None:
    """Print the JSON Schema of providers.json."""
    from fanout.config.providers_file import make_json_schema

    echo(json.dumps(make_json_schema(), indent=2))
