"""Past questions, read from the log to be shown or gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from fanout.cli.ask.question import AskQuestion, read_past
from fanout.cli.log.record import ASK_PATH, open_log
from fanout.config.settings import Settings
from fanout.core.json_text import JsonObject
from fanout.core.sampling import SAMPLING_NAMES
from fanout.rendering.history import (
    PastChoiceJson,
    PastComparisonJson,
    render_past_choice,
    render_past_comparison,
    render_request,
)
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.recorder import History

LAST = "last"
"""Name of the newest question of the command line."""
MAX_PREFIX_MATCHES = 5
NO_TEXTS = "its texts were not kept (FANOUT_HISTORY)"


@dataclass(frozen=True, slots=True)
class PastQuestion:
    """A comparison of the log."""

    comparison: PastComparisonJson
    request: object
    """The question as it was kept; `None`: without its texts."""
    choices: Sequence[PastChoiceJson]

    @property
    def prompt(self) -> str:
        """The prompt in one piece; empty where it was not kept."""
        return _to_text(read_past(self.request)[0]) if isinstance(self.request, dict) else ""

    def to_question(self) -> AskQuestion:
        """Return the question as it went to the models.

        Raises:
            ClickException: its texts were not kept.
        """
        if not isinstance(self.request, dict):
            raise click.ClickException(f"{self.comparison['id']} cannot be gone on with: {NO_TEXTS}")
        content, past = read_past(self.request)
        parameters: JsonObject = {name: self.request[name] for name in SAMPLING_NAMES if name in self.request}
        models = tuple(dict.fromkeys(choice["model"] for choice in self.choices))
        return AskQuestion(models, content, self.request.get("system"), parameters, past=past)

    def list_answers(self) -> Mapping[str, str]:
        """Return the text of each model that answered; of several samples the first."""
        answers: dict[str, str] = {}
        for choice in self.choices:
            # A conversation goes on from one answer; which of several samples it was, nobody can see.
            if choice["error"] is None and choice["sample"] == 0:
                answers.setdefault(choice["model"], choice["text"] or "")
        return answers


async def find_past_question(settings: Settings, name: str) -> PastQuestion:
    """Return the question with this id, whose id begins so, or the last one of the command line.

    Raises:
        ClickException: there is none, or there are several.
    """
    async with open_log(settings, is_reading=True) as store:
        chosen = (
            # Of the command line alone: a server on the same store has questions of other people.
            ComparisonFilter(path=ASK_PATH, limit=1)
            if name == LAST
            else ComparisonFilter(id_prefix=name, limit=MAX_PREFIX_MATCHES)
        )
        found = await store.history.list_comparisons(chosen)
        if not found:
            what = "there is no question yet" if name == LAST else f"no question has an id that begins with `{name}`"
            raise click.ClickException(f"{what}; `fanout log` lists them")
        if len(found) > 1:
            ids = ", ".join(one.comparison.id for one in found)
            raise click.ClickException(f"`{name}` could be several questions: {ids}")
        return await read_whole(store.history, found[0].comparison.id)


async def read_whole(history: History, id_: str) -> PastQuestion:
    """Return a comparison with its answers."""
    stored = await history.find(id_)
    # Retention may delete it between the list and this read.
    if stored is None:
        raise click.ClickException(f"{id_} has been removed meanwhile")
    choices = [render_past_choice(answer) for answer in stored.answers]
    return PastQuestion(render_past_comparison(stored), render_request(stored.comparison.request), choices)


def _to_text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", f"[{part.get('type', '?').removesuffix('_url')}]")) for part in parts if isinstance(part, dict)
    )
