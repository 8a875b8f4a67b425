"""Past questions: listed, searched, shown and gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from fanout.cli.ask.question import AskQuestion, read_kept
from fanout.core.fusion_syntax import is_fusion
from fanout.core.json_text import JsonObject
from fanout.core.sampling import SAMPLING_NAMES

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.history import PastChoiceJson, PastComparisonJson

LAST = "last"
"""Name of the newest question of the command line."""
SHORT_ID_CHARS = 8
NO_TEXTS = "its texts were not kept (FANOUT_HISTORY=full keeps them)"


@dataclass(frozen=True, slots=True)
class PastQuestion:
    """A comparison that was kept."""

    comparison: PastComparisonJson
    request: object
    """The question as it was kept; `None`: without its texts."""
    choices: Sequence[PastChoiceJson]

    @property
    def id(self) -> str:
        return self.comparison["id"]

    @property
    def prompt(self) -> str:
        """The prompt in one piece; empty where it was not kept."""
        return _to_text(read_kept(self.request).content) if isinstance(self.request, dict) else ""

    def to_question(self) -> AskQuestion:
        """Return the question as it went to the models.

        Raises:
            ClickException: its texts were not kept.
        """
        if not isinstance(self.request, dict):
            raise click.ClickException(f"{self.id} cannot be gone on with: {NO_TEXTS}")
        kept = read_kept(self.request)
        given = {**(self.request.get("model_parameters") or {}), **self.request}  # Scale's dialect has them apart
        parameters: JsonObject = {name: given[name] for name in SAMPLING_NAMES if given.get(name) is not None}
        models = tuple(dict.fromkeys(name for choice in self.choices if (name := _get_name(choice))))
        return AskQuestion(models, kept.content, kept.system, parameters, past=kept.build_past(models))

    def list_answers(self) -> Mapping[str, str]:
        """Return the text of each model that answered; of several samples the first."""
        answers: dict[str, str] = {}
        for choice in self.choices:
            # A conversation goes on from one answer; which of several samples it was, nobody can see.
            if choice["error"] is None and choice["sample"] == 0 and (name := _get_name(choice)):
                answers.setdefault(name, choice["text"] or "")
        return answers


def _get_name(choice: PastChoiceJson) -> str | None:
    """Return the name by which a conversation goes on with a model or a fusion; `None` for a member of one alone."""
    if is_fusion(choice["label"]):
        return choice["label"]
    return None if choice.get("is_member") else choice["model"]


def _to_text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part if isinstance(part, str) else str(part.get("text", f"[{str(part.get('type', '?')).removesuffix('_url')}]"))
        for part in parts
        if isinstance(part, dict | str)
    )
