"""The models that `-m` names: names, sets, `<provider>/<id>`, several with commas, and patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from fanout.core.fusion_syntax import is_fusion, tidy_fusion
from fanout.core.suggestions import did_you_mean

if TYPE_CHECKING:  # a command's help needs neither
    from fanout.cli.client import ServerClient
    from fanout.config.catalogue import Catalogue

PATTERN_CHARACTERS = frozenset("*?")
COMMAS = re.compile(r",(?![^()]*\))")
"""Commas outside of parentheses."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model among which a pattern chooses."""

    name: str
    spellings: tuple[str, ...]
    """Every name that it answers to, `<provider>/<id>` among them."""
    is_ready: bool


ListModels = Callable[[], Sequence[ListedModel]]


def split_words(words: Iterable[str]) -> list[str]:
    """Return the names in `-m` options, of which each may hold several with commas; those of a fusion belong to it."""
    names = [name.strip() for word in words for name in COMMAS.split(word) if name.strip()]
    return [tidy_fusion(name) if is_fusion(name) else name for name in names]


def has_pattern(words: Iterable[str]) -> bool:
    """Return whether a list of models is needed to know what is meant."""
    return any(PATTERN_CHARACTERS & set(word) and not is_fusion(word) for word in split_words(words))


def expand_models(words: Sequence[str], list_models: ListModels) -> list[str]:
    """Return the names that the options stand for, in their order, each once where a pattern found it.

    Raises:
        UsageError: nothing that is ready matches a pattern.
    """
    names: list[str] = []
    for word in split_words(words):
        if not has_pattern([word]):
            names.append(word)  # even twice: the same model twice is two answers
            continue
        # Listed only for patterns: at a server the list is a request, and plain names need none.
        names += [name for name in _match(word, list_models()) if name not in names]
    return names


def _match(pattern: str, models: Sequence[ListedModel]) -> list[str]:
    wanted = pattern.lower()
    found = [model for model in models if any(fnmatchcase(spelling.lower(), wanted) for spelling in model.spellings)]
    if ready := [model.name for model in found if model.is_ready]:
        return ready
    if found:
        raise click.UsageError(f"-m: none of the {len(found)} models like `{pattern}` is ready; `fanout models` says why")
    near = did_you_mean(pattern.strip("*?"), [spelling for model in models for spelling in model.spellings])
    raise click.UsageError(f"-m: no model is like `{pattern}`{near or '; `fanout models` lists what is known'}")


def list_local_models(catalogue: Catalogue) -> list[ListedModel]:
    """Return the models of the catalogue that their vendors still serve."""
    today = datetime.now(UTC).date()
    return [
        ListedModel(
            model.name,
            (model.name, f"{model.provider}/{model.id}", *(model.row.aliases if model.row else ())),
            not catalogue.lacks(model),
        )
        for model in catalogue
        if not catalogue.refuse_after_shutdown(model, today)
    ]


async def list_remote_models(client: ServerClient) -> list[ListedModel]:
    """Return the models of a server."""
    rows = (await client.get("/v1/models"))["data"]
    return [
        ListedModel(row["id"], (row["id"], f"{row['provider']}/{row['upstream_id']}", *row["aliases"]), row["ready"])
        for row in rows
    ]
