"""`fanout templates`: saved questions."""

from __future__ import annotations

import click

from fanout.cli.ask.templates import find_folder, find_path, list_templates, read_template
from fanout.cli.completion import complete_templates
from fanout.cli.default_group import DefaultGroup
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.shown_text import to_single_line

MAX_SHOWN_CHARS = 60


@click.group(cls=DefaultGroup)
def templates() -> None:
    """List, show and remove saved questions; `fanout ask --save NAME` makes one, `fanout ask -t NAME` asks it."""


@templates.command(name="list")
def list_() -> None:
    """List the saved questions."""
    rows = []
    for name in list_templates():
        saved = read_template(name)
        text = to_single_line(saved.prompt or saved.system or "")
        rows.append((name, ", ".join(saved.models), text[:MAX_SHOWN_CHARS]))
    if rows:
        print_table(SafeConsole(), ("name", "models", "prompt"), rows)
    else:
        echo('no templates; `fanout ask --save NAME "… {{input}}"` makes one', err=True)


@templates.command()
@click.argument("name", shell_complete=complete_templates)
def show(name: str) -> None:
    """Print a saved question as JSON."""
    echo(read_template(name).model_dump_json(indent=2, exclude_defaults=True))


@templates.command()
@click.argument("name", shell_complete=complete_templates)
def remove(name: str) -> None:
    """Remove a saved question."""
    read_template(name)
    find_path(name).unlink()


@templates.command()
def path() -> None:
    """Print the folder of the saved questions: a JSON file for each."""
    echo(str(find_folder()))
