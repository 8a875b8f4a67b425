"""`fanout log`: list, search and show past questions."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fanout.cli.completion import complete_models
from fanout.cli.default_group import DefaultGroup
from fanout.cli.options import load_settings, print_json, with_settings
from fanout.cli.tables import SafeConsole, echo, format_usd, print_line, print_table
from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_single_line

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.config.settings import Settings

SHORT_ID_CHARS = 8
MAX_SHOWN_CHARS = 60


@click.group(cls=DefaultGroup)
def log() -> None:
    """List, search and show your questions; without a command, list them.

    ID is the beginning of a question's id, or `last`. `fanout ask --from ID` and `fanout chat --from ID` go on from one.
    """


@log.command(name="list")
@with_settings
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("-m", "--model", help="Only questions to this model.", shell_complete=complete_models)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(
    config_file: Path | None, env_file: Path | None, words: tuple[str, ...], model: str | None, limit: int, as_json: bool
) -> None:
    """List the newest questions; with WORDs, those whose prompt or answers contain them all."""
    settings = load_settings(config_file, env_file)
    rows = asyncio.run(_list_questions(settings, words, model, limit))
    if as_json:
        print_json({"object": "list", "data": rows})
    elif rows:
        _print_rows(rows)
    else:
        echo("no questions" + (f" with {' and '.join(words)}" if words else ""), err=True)


async def _list_questions(settings: Settings, words: tuple[str, ...], model: str | None, limit: int) -> list[JsonObject]:
    from fanout.cli.log.past import read_whole
    from fanout.cli.log.record import open_log
    from fanout.store.history.queries import ComparisonFilter

    async with open_log(settings, is_reading=True) as store:
        found = await store.history.list_comparisons(ComparisonFilter(model=model, texts=words, limit=limit))
        questions = [await read_whole(store.history, one.comparison.id) for one in found]
    return [{**question.comparison, "prompt": question.prompt or None} for question in questions]


def _print_rows(rows: list[JsonObject]) -> None:
    cells = []
    for row in rows:
        # In the user's own time zone: they look for "yesterday afternoon".
        when = datetime.fromisoformat(row["created"].replace("Z", "+00:00")).astimezone()
        models = ", ".join(dict.fromkeys(entry["model"] for entry in row["entries"]))
        answered = f"{row['answered']}/{row['answered'] + row['failed']}"
        cost = "?" if row["cost_usd"] is None else format_usd(row["cost_usd"])
        # Control characters in a prompt or a name could rewrite the terminal.
        prompt = to_single_line(row["prompt"] or "(its text was not kept)")
        cells.append(
            (row["id"][:SHORT_ID_CHARS], f"{when:%Y-%m-%d %H:%M}", answered, cost, _cut(prompt), to_single_line(models))
        )
    print_table(SafeConsole(), ("id", "time", "answered", "cost", "prompt", "models"), cells, right=("answered", "cost"))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"


@log.command()
@with_settings
@click.argument("name", metavar="[ID]", default="last")
@click.option("--raw", is_flag=True, help="Show the answers' text instead of rendering its Markdown.")
@click.option("--plain", "--no-box", is_flag=True, help="Show the answers one below the other, without frames.")
@click.option("--json", "as_json", is_flag=True, help="Print the question and its answers as JSON.")
def show(config_file: Path | None, env_file: Path | None, name: str, raw: bool, plain: bool, as_json: bool) -> None:
    """Show a question and its answers again; by default the last one."""
    from fanout.cli.log.past import NO_TEXTS, find_past_question
    from fanout.cli.side_by_side import SideBySide

    past = asyncio.run(find_past_question(load_settings(config_file, env_file), name))
    if as_json:
        print_json({**past.comparison, "request": past.request, "choices": past.choices})
        return
    console = SafeConsole()
    print_line(console, past.prompt or f"({NO_TEXTS})")
    print_line(console, "")
    with SideBySide(console, markdown=not (raw or plain), framed=not plain, is_live=False) as view:
        view.begin({choice["index"]: choice["label"] for choice in past.choices})
        for choice in past.choices:
            view.add(choice["index"], choice["text"] or "")
            view.finish(choice["index"], dict(choice))
