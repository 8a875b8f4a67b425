"""Completion with Tab of models, sets, providers, jobs, questions, templates and files.

A faulty configuration completes nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, FishComplete, add_completion_class

from fanout.core.errors import FanoutError

if TYPE_CHECKING:
    from fanout.config.settings import Settings

MAX_JOBS = MAX_QUESTIONS = 50
MAX_PROMPT_CHARS = 60


@add_completion_class
class WholeFishComplete(FishComplete):
    """Completion in fish that keeps the commas of `-m one,two`, at which click's own cuts an answer."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


def _complete(
    list_names: Callable[[click.Context], Iterable[str]], ctx: click.Context, incomplete: str
) -> list[CompletionItem]:
    """Return the names that go on from what is typed; behind a comma, from what stands behind it."""
    before, comma, word = incomplete.rpartition(",")
    with suppress(FanoutError, OSError):  # a shell that completes must not print errors
        return [CompletionItem(f"{before}{comma}{name}") for name in list_names(ctx) if name.lower().startswith(word.lower())]
    return []


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete models, sets, and `<provider>/` for its other models."""

    def list_names(ctx: click.Context) -> Iterable[str]:
        settings = _load(ctx)
        ready = {name for name, provider in settings.providers.items() if not provider.lacks()}
        # What is not ready would only be in the way.
        models = [name for name, row in settings.models.items() if row.provider in ready]
        return dict.fromkeys([*settings.sets, *models, *(f"{name}/" for name in settings.providers if name in ready)])

    return _complete(list_names, ctx, incomplete)


def complete_providers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete providers."""
    return _complete(lambda ctx: _load(ctx).providers, ctx, incomplete)


def complete_templates(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete saved templates."""
    from fanout.cli.ask.templates import list_templates

    return _complete(lambda ctx: list_templates(), ctx, incomplete)


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `last` and the newest jobs of this machine."""

    def list_names(ctx: click.Context) -> Iterable[str]:
        from fanout.cli.log.record import open_log
        from fanout.store.jobs.job_store import JobStore

        async def list_jobs() -> list[str]:
            async with open_log(_load(ctx), is_reading=True) as store:
                return [job.id for job in await JobStore(store.database).list_jobs(limit=MAX_JOBS)]

        return ["last", *asyncio.run(list_jobs())]

    return _complete(list_names, ctx, incomplete)


def complete_questions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `last` and the newest questions of this machine, each with its prompt."""
    from fanout.cli.ask.location import AskLocation
    from fanout.cli.log.past import LAST, SHORT_ID_CHARS, PastQuestion
    from fanout.cli.log.sources import list_questions, open_questions
    from fanout.core.shown_text import to_single_line

    async def list_newest() -> list[PastQuestion]:
        async with open_questions(
            AskLocation(*(ctx.params.get(name) for name in ("config_file", "env_file", "server")))
        ) as source:
            return await list_questions(source, limit=MAX_QUESTIONS)

    found = [CompletionItem(LAST)]
    with suppress(FanoutError, OSError):
        found += [
            CompletionItem(one.id[:SHORT_ID_CHARS], help=to_single_line(one.prompt)[:MAX_PROMPT_CHARS] or None)
            for one in asyncio.run(list_newest())
        ]
    return [item for item in found if item.value.startswith(incomplete)]


def complete_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to complete a file's name."""
    return [CompletionItem(incomplete, type="file")]


def _load(ctx: click.Context) -> Settings:
    from fanout.config.env_file import add_env_file
    from fanout.config.settings import load_settings

    config, env_file = (Path(value) if (value := ctx.params.get(name)) else None for name in ("config_file", "env_file"))
    return load_settings(config, add_env_file(env_file, os.environ))
