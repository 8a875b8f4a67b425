"""`fanout models`: the models that can be called, what the others lack, and the default ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from fanout.cli.completion import complete_models, complete_providers
from fanout.cli.default_group import DefaultGroup
from fanout.cli.init.draft import Draft
from fanout.cli.model_choice import expand_models, list_local_models
from fanout.cli.options import is_ready, load_settings, print_json, with_settings
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole, drop_columns, print_table
from fanout.config.catalogue import Catalogue, Model
from fanout.core.suggestions import did_you_mean
from fanout.core.usage import Usage
from fanout.dispatch import pricing
from fanout.dispatch.default_models import choose_default_models
from fanout.rendering.model import render_models

COLUMNS = ("model", "provider", "kind", "context", "$/M in", "$/M out", "state")
LEAST_NEEDED = ("kind", "context", "provider", "$/M out", "$/M in")
"""Columns that a narrow terminal does without, the first first."""
MIN_STATE_COLUMNS = 15
PRICED_TOKENS = 1000  # few, because of some models a longer prompt has another price


@click.group(cls=DefaultGroup)
def models() -> None:
    """List the models: ready, or what is missing. `fanout models default` shows or sets the default ones."""


@models.command(name="list")
@with_settings
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--provider", "provider", help="Only models of this provider.", shell_complete=complete_providers)
@click.option("--ready", is_flag=True, help="Only those that can be called now.")
@click.option("--all", "all_", is_flag=True, help="Also those that their vendors have shut down.")
@click.option("--json", "as_json", is_flag=True, help="Print what `GET /v1/models` would return.")
def list_(
    config_file: Path | None,
    env_file: Path | None,
    words: tuple[str, ...],
    provider: str | None,
    ready: bool,
    all_: bool,
    as_json: bool,
) -> None:
    """List the models whose names or makers hold every WORD, those that are ready first, each with its price."""
    settings = load_settings(config_file, env_file)
    if provider is not None and provider not in settings.providers:
        known = did_you_mean(provider, settings.providers) or f"; known: {', '.join(settings.providers)}"
        raise click.UsageError(f"unknown provider `{provider}`{known}")
    catalogue, today = Catalogue(settings), datetime.now(UTC).date()
    listed = [
        model
        for model in catalogue
        if (provider in (None, model.provider))
        and (is_ready(model, catalogue) or not ready)
        and (all_ or catalogue.refuse_after_shutdown(model, today) is None)
        and all(word.lower() in _list_spellings(model) for word in words)
    ]
    listed.sort(key=lambda model: not is_ready(model, catalogue))
    if as_json:
        print_json(render_models(listed, catalogue))
    elif listed:
        _print_models(SafeConsole(), listed, catalogue)
    else:
        _explain_none(provider, words, catalogue)


def _list_spellings(model: Model) -> str:
    parts = [model.name, f"{model.provider}/{model.id}"]
    if model.row:
        parts += [*model.row.aliases, model.row.creator or "", model.row.name or ""]
    return "\n".join(parts).lower()


def _explain_none(provider: str | None, words: Sequence[str], catalogue: Catalogue) -> None:
    if words:
        names = [model.name for model in catalogue]
        echo(f"no such model{did_you_mean(' '.join(words), names)}", err=True)
    elif provider:
        echo(f"none has an entry; any model of `{provider}` can be called as `{provider}/<its id>`", err=True)
    else:
        echo("no model is ready; `fanout init` asks for what they need", err=True)


def _print_models(console: Console, listed: Sequence[Model], catalogue: Catalogue) -> None:
    rows = [_to_cells(model, catalogue) for model in listed]
    columns, shown = drop_columns(console, COLUMNS, rows, LEAST_NEEDED, MIN_STATE_COLUMNS)
    print_table(console, columns, shown, right=("context", "$/M in", "$/M out"))


def _to_cells(model: Model, catalogue: Catalogue) -> tuple[str, ...]:
    context = str(model.row.max_context_length or "") if model.row else ""
    prices = (_format_price(model, catalogue, side) for side in ("input_tokens", "output_tokens"))
    return (model.name, model.provider, model.kind, context, *prices, _describe_state(model, catalogue))


def _format_price(model: Model, catalogue: Catalogue, side: str) -> str:
    """Return US dollars for a million tokens; empty where no price is known."""
    provider = catalogue.find_provider(model)
    usage = Usage(PRICED_TOKENS, 0) if side == "input_tokens" else Usage(0, PRICED_TOKENS)
    # By the same function as a call's cost, so that the list cannot promise another price.
    price = model.row.price if model.row else None
    cost = pricing.compute_cost(usage, pricing.read_price(price), provider.priced_as, model.id)
    return "" if cost is None else f"{cost.usd * 1e6 / PRICED_TOKENS:.4g}"


def _describe_state(model: Model, catalogue: Catalogue) -> str:
    ends = model.row.deprecated_on if model.row else None
    if catalogue.refuse_after_shutdown(model, datetime.now(UTC).date()):
        return f"shut down on {ends}"
    lacks = catalogue.lacks(model)
    return (f"needs {' and '.join(lacks)}" if lacks else "ready") + (f", until {ends}" if ends else "")


@models.command()
@with_settings
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=complete_models)
def default(config_file: Path | None, env_file: Path | None, names: tuple[str, ...]) -> None:
    """Show the models that are called without -m, or make MODELs those: the set `mine` of your providers.json."""
    if not names:
        settings = load_settings(config_file, env_file)
        chosen = choose_default_models(settings)
        members = [member for name in chosen.names for member in settings.sets.get(name, (name,))]
        echo(f"{', '.join(members)}: {chosen.reason}")
        return
    draft = Draft.from_files(env_file, config_file)
    catalogue = Catalogue(draft.load_settings())
    members = expand_models(names, lambda: list_local_models(catalogue))
    members = [member for name in members for member in catalogue.find_set(name) or (name,)]
    for name in members:
        if catalogue.find(name) is None:
            raise click.UsageError(catalogue.refuse_unknown(name).message)
    draft.chosen = tuple(dict.fromkeys(members))
    _, files = draft.list_changes()
    for line in draft.write(files):
        echo(line)
    echo(f"called by default: {', '.join(draft.chosen)}")
