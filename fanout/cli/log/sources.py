"""The places that keep past questions: the store of this machine, or a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import click

from fanout.cli.log.last_answers import read_last_ids
from fanout.cli.log.past import LAST, PastQuestion
from fanout.cli.options import load_settings, read_server_key

if TYPE_CHECKING:
    from fanout.cli.ask.location import AskLocation
    from fanout.cli.client import ServerClient
    from fanout.store.history.records import ComparisonRow
    from fanout.store.opening import Store

MAX_PREFIX_MATCHES = 5
MAX_PAGE = 100
"""Most comparisons that a server lists at once."""
MAX_UNANSWERED = 20
"""Questions among which the last one with an answer is looked for: a mistyped model or a missing key ends no conversation."""
MAX_READS = 10
"""Questions that are read from it at the same time."""


class QuestionSource(Protocol):
    """A place that keeps questions, its own and those of the servers that share it."""

    async def list_ids(self, words: Sequence[str], model: str | None, limit: int) -> Sequence[str]:
        """Return the newest questions whose texts hold all the words, of one model if it is named."""

    async def find_ids(self, prefix: str, limit: int) -> Sequence[str]:
        """Return some of the questions whose ids begin with a prefix."""

    async def find_last_ids(self, *, answered: bool = False) -> Sequence[str]:
        """Return the last question of the command line, or the last one that a model answered.

        They are several where each model was sent one of its own.
        """

    async def read(self, id_: str) -> PastQuestion:
        """Return a question with its answers."""


class LocalQuestions:
    """The questions in the store of this configuration."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_ids(self, words: Sequence[str], model: str | None, limit: int) -> Sequence[str]:
        return await self._list(model=model, texts=words, limit=limit)

    async def find_ids(self, prefix: str, limit: int) -> Sequence[str]:
        return await self._list(id_prefix=prefix, limit=limit)

    async def find_last_ids(self, *, answered: bool = False) -> Sequence[str]:
        from fanout.cli.log.record import ASK_PATH

        # Of the command line alone: a server on the same store has questions of other people.
        found = await self._read_rows(path=ASK_PATH, limit=MAX_UNANSWERED if answered else 1)
        ids = [row.id for row in found if row.answered or not answered]
        return (ids or [row.id for row in found])[:1]

    async def _list(self, **chosen: object) -> list[str]:
        return [row.id for row in await self._read_rows(**chosen)]

    async def _read_rows(self, **chosen: object) -> list[ComparisonRow]:
        from fanout.store.history.queries import ComparisonFilter

        found = await self._store.history.list_comparisons(ComparisonFilter(**chosen))  # type: ignore[arg-type]
        return [one.comparison for one in found]

    async def read(self, id_: str) -> PastQuestion:
        from fanout.rendering.history import render_past_choice, render_past_comparison, render_request

        stored = await self._store.history.find(id_)
        # Retention may delete it between the list and this read.
        if stored is None:
            raise click.ClickException(f"{id_} has been removed meanwhile")
        choices = [render_past_choice(answer) for answer in stored.answers]
        return PastQuestion(render_past_comparison(stored), render_request(stored.comparison.request), choices)


class RemoteQuestions:
    """The history of a server, as far as its key may read it."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def list_ids(self, words: Sequence[str], model: str | None, limit: int) -> Sequence[str]:
        ids: list[str] = []
        query: dict[str, str | Sequence[str]] = {**({"model": model} if model else {}), **({"text": words} if words else {})}
        while len(ids) < limit:
            after = {"after": ids[-1]} if ids else {}
            page = await self._client.get("/v1/comparisons", limit=min(limit - len(ids), MAX_PAGE), **query, **after)
            ids += [row["id"] for row in page["data"]]
            if not page["has_more"]:
                break
        return ids

    async def find_ids(self, prefix: str, limit: int) -> Sequence[str]:
        page = await self._client.get("/v1/comparisons", id_prefix=prefix, limit=limit)
        return [row["id"] for row in page["data"]]

    async def find_last_ids(self, *, answered: bool = False) -> Sequence[str]:
        # Those that this command received last: the newest may be of other people.
        return read_last_ids(self._client.address, answered=answered) or await self.list_ids((), None, 1)

    async def read(self, id_: str) -> PastQuestion:
        whole = await self._client.get(f"/v1/comparisons/{id_}")
        return PastQuestion(whole, whole["request"], whole["choices"])  # type: ignore[arg-type]


@asynccontextmanager
async def open_questions(location: AskLocation) -> AsyncGenerator[QuestionSource]:
    """Open the place that keeps the questions of a location.

    Raises:
        ConfigError: there is no store, or it cannot be opened.
        ServerError: no server answers there.
    """
    if location.server:
        from fanout.cli.client import open_client

        async with open_client(location.server, read_server_key(location.env_file)) as client:
            yield RemoteQuestions(client)
        return
    from fanout.cli.log.record import open_log

    async with open_log(load_settings(location.config_file, location.env_file), is_reading=True) as store:
        yield LocalQuestions(store)


async def list_questions(
    source: QuestionSource, words: Sequence[str] = (), model: str | None = None, limit: int = 20
) -> list[PastQuestion]:
    """Return the newest questions that hold all the words, of one model if it is named."""
    found: list[PastQuestion] = []
    listed = await source.list_ids(words, model, limit)
    for start in range(0, len(listed), MAX_READS):
        ids = listed[start : start + MAX_READS]
        found += await asyncio.gather(*map(source.read, ids))
    return found


async def find_past_questions(source: QuestionSource, name: str, *, answered: bool = False) -> list[PastQuestion]:
    """Return the question with this id, or whose id begins so, or the last one; several: one for each of its models.

    Args:
        source: the place that keeps them.
        name: the id, its beginning, or `last`.
        answered: the last one that a model answered.

    Raises:
        ClickException: there is none, or there are several.
    """
    if name == LAST:
        ids = await source.find_last_ids(answered=answered)
    else:
        ids = await source.find_ids(name, MAX_PREFIX_MATCHES)
    if not ids:
        what = "there is no question yet" if name == LAST else f"no question has an id that begins with `{name}`"
        raise click.ClickException(f"{what}; `fanout log` lists them")
    if name != LAST and len(ids) > 1:
        raise click.ClickException(f"`{name}` could be several questions: {', '.join(ids)}")
    return [await source.read(id_) for id_ in ids]
