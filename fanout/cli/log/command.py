"""`fanout log`: list, search and show past questions."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.ask.location import AskLocation
from fanout.cli.completion import complete_models, complete_questions
from fanout.cli.default_group import DefaultGroup
from fanout.cli.log.past import NO_TEXTS, SHORT_ID_CHARS, PastQuestion
from fanout.cli.options import print_json, with_settings
from fanout.cli.output import echo, format_usd
from fanout.cli.tables import SafeConsole, drop_columns, print_line, print_table
from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_single_line

if TYPE_CHECKING:  # a command's help needs none of them
    pass

MAX_SHOWN_CHARS = 60
COLUMNS = ("id", "time", "answered", "cost", "models", "prompt")
LEAST_NEEDED = ("cost", "answered", "models")
"""Columns that a narrow terminal does without, the first first."""
MIN_PROMPT_COLUMNS = 24


def _with_location(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config, --env-file and --server, passed to the command as its first argument."""

    @with_settings
    @click.option("--server", help="Address of a running server, whose history is read instead.")
    @functools.wraps(command)
    def wrapper(config_file: Path | None, env_file: Path | None, server: str | None, **options: Any) -> None:
        command(AskLocation(config_file, env_file, server), **options)

    return wrapper


@click.group(cls=DefaultGroup)
def log() -> None:
    """List, search and show your questions; without a command, list them.

    Servers on the same store keep theirs there, too; --server reads the history of another one. ID is the beginning of a
    question's id, or `last`. `fanout ask --from ID` and `fanout chat --from ID` go on from one.
    """


@log.command(name="list")
@_with_location
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("-m", "--model", help="Only questions to this model.", shell_complete=complete_models)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(location: AskLocation, words: tuple[str, ...], model: str | None, limit: int, as_json: bool) -> None:
    """List the newest questions; with WORDs, those whose prompt or answers contain them all."""
    questions = asyncio.run(_list_questions(location, words, model, limit))
    rows = [{**question.comparison, "prompt": question.prompt or None} for question in questions]
    if as_json:
        print_json({"object": "list", "data": rows})
    elif rows:
        _print_rows(rows)
    else:
        echo("no questions" + (f" with {' and '.join(words)}" if words else ""), err=True)


async def _list_questions(location: AskLocation, words: tuple[str, ...], model: str | None, limit: int) -> list[PastQuestion]:
    from fanout.cli.log.sources import list_questions, open_questions

    async with open_questions(location) as source:
        return await list_questions(source, words, model, limit)


def _print_rows(rows: list[JsonObject]) -> None:
    console = SafeConsole()
    cells = []
    for row in rows:
        # In the user's own time zone: they look for "yesterday afternoon".
        when = datetime.fromisoformat(row["created"].replace("Z", "+00:00")).astimezone()
        answered = f"{row['answered']}/{row['answered'] + row['failed']}"
        cost = "?" if row["cost_usd"] is None else format_usd(row["cost_usd"])
        names = list(dict.fromkeys(entry["model"] for entry in row["entries"]))
        is_short = console.is_terminal and len(names) > 1
        models = f"{names[0]} +{len(names) - 1}" if is_short else ", ".join(names)
        # Control characters in a prompt or a name could rewrite the terminal.
        prompt = to_single_line(row["prompt"] or "(its text was not kept)")
        cells.append(
            (row["id"][:SHORT_ID_CHARS], f"{when:%Y-%m-%d %H:%M}", answered, cost, to_single_line(models), _cut(prompt))
        )
    columns, shown = drop_columns(console, COLUMNS, cells, LEAST_NEEDED, MIN_PROMPT_COLUMNS)
    print_table(console, columns, shown, right=("answered", "cost"))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"


@log.command()
@_with_location
@click.argument("name", metavar="[ID]", default="last", shell_complete=complete_questions)
@click.option("--raw", is_flag=True, help="Show the answers' text instead of rendering its Markdown.")
@click.option("--plain", "--no-box", is_flag=True, help="Show the answers one below the other, without frames.")
@click.option("--json", "as_json", is_flag=True, help="Print the question and its answers as JSON.")
def show(location: AskLocation, name: str, raw: bool, plain: bool, as_json: bool) -> None:
    """Show a question and its answers again; by default the last one."""
    from fanout.cli.side_by_side import SideBySide

    pasts = asyncio.run(_find_questions(location, name))
    if as_json:
        rows = [{**past.comparison, "request": past.request, "choices": past.choices} for past in pasts]
        print_json(rows[0] if len(rows) == 1 else {"object": "list", "data": rows})
        return
    console = SafeConsole()
    print_line(console, pasts[0].prompt or f"({NO_TEXTS})")
    print_line(console, "")
    choices = list(enumerate(choice for past in pasts for choice in past.choices))
    with SideBySide(console, markdown=not (raw or plain), framed=not plain, is_live=False) as view:
        view.begin({place: choice["label"] for place, choice in choices})
        for place, choice in choices:
            view.add(place, choice["text"] or "")
            view.finish(place, dict(choice))


async def _find_questions(location: AskLocation, name: str) -> list[PastQuestion]:
    from fanout.cli.log.sources import find_past_questions, open_questions

    async with open_questions(location) as source:
        return await find_past_questions(source, name)
