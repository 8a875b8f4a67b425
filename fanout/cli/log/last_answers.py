"""The last answers from each server, so that `-c` goes on from one's own question, not from the newest of many people."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fanout.cli import private_files
from fanout.cli.ask.question import ALL_FAILED
from fanout.config.environment import find_data_folder

if TYPE_CHECKING:
    from fanout.cli.ask.question import AskQuestion
    from fanout.cli.client import ServerClient

FILE_NAME = "last-answers.json"
MAX_SERVERS = 20


class LastAnswers:
    """The log of a command whose questions a server keeps: it remembers only which they were."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def keep(self, question: AskQuestion, *, created: float, total_s: float, status: int) -> None:
        """Remember the ids of the last question's answers, and those of the last question that a model answered."""
        path, ids = _find_path(), self._client.take_comparison_ids()
        if path is None or not ids:
            return
        known = _read(path)
        before = known.pop(self._client.address, {})
        last = {"last": ids, "answered": before.get("answered", []) if status == ALL_FAILED else ids}
        kept = dict([*known.items(), (self._client.address, last)][-MAX_SERVERS:])
        with suppress(OSError):  # without a home `-c` goes on from the server's newest question
            private_files.write(path, json.dumps(kept).encode(), has_copy=False)


def read_last_ids(address: str, *, answered: bool = False) -> Sequence[str]:
    """Return the ids of the last answers from a server, one for each request of the question.

    Args:
        address: the server's.
        answered: of the last question that a model answered, if there is one.
    """
    path = _find_path()
    known = _read(path).get(address, {}) if path else {}
    return known.get("answered" if answered and known.get("answered") else "last", ())


def _find_path() -> Path | None:
    folder = find_data_folder(os.environ)
    return folder / FILE_NAME if folder else None


def _read(path: Path) -> dict[str, dict[str, list[str]]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(address): {str(which): [str(id_) for id_ in ids] for which, ids in known.items()}
            for address, known in kept.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # lost or damaged, the newest question is gone on from
        return {}
