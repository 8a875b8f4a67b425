"""The last answers from each server, so that `-c` goes on from one's own question, not from the newest of many people."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fanout.cli import private_files
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
        """Remember the ids of the last question's answers."""
        path, ids = _find_path(), self._client.take_comparison_ids()
        if path is None or not ids:
            return
        others = {address: known for address, known in _read(path).items() if address != self._client.address}
        kept = dict([*others.items(), (self._client.address, ids)][-MAX_SERVERS:])
        with suppress(OSError):  # without a home `-c` goes on from the server's newest question
            private_files.write(path, json.dumps(kept).encode(), has_copy=False)


def read_last_ids(address: str) -> Sequence[str]:
    """Return the ids of the last answers from a server, one for each request of the question."""
    path = _find_path()
    return _read(path).get(address, ()) if path else ()


def _find_path() -> Path | None:
    folder = find_data_folder(os.environ)
    return folder / FILE_NAME if folder else None


def _read(path: Path) -> dict[str, list[str]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {str(address): [str(id_) for id_ in ids] for address, ids in kept.items()}
    except (OSError, ValueError, AttributeError, TypeError):  # lost or damaged, the newest question is gone on from
        return {}
