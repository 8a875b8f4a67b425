"""Recent answers in memory: for servers without a database, and for the time in which it cannot be written."""

from __future__ import annotations

from collections import OrderedDict

from fanout.store.idempotency import StoredAnswer

MAX_MEMORY_BYTES = 32 * 2**20
OVERHEAD_BYTES = 1024
"""Of an answer beside its body: headers, keys and the objects themselves."""


class RecentAnswers:
    """Answers by the scope of their key; the oldest are dropped once all together exceed `MAX_MEMORY_BYTES`."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, StoredAnswer] = OrderedDict()
        self._size_bytes = 0

    def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        """Add an answer, in place of an older one to the same key."""
        self._drop(scope)
        self._answers[scope] = answer
        self._size_bytes += _size(answer)
        while self._size_bytes > MAX_MEMORY_BYTES:
            self._drop(next(iter(self._answers)))

    def find(self, scope: bytes) -> StoredAnswer | None:
        """Return the answer to a key, unless it has expired."""
        answer = self._answers.get(scope)
        return answer if answer and answer.is_fresh else None

    def _drop(self, scope: bytes) -> None:
        if answer := self._answers.pop(scope, None):
            self._size_bytes -= _size(answer)


def _size(answer: StoredAnswer) -> int:
    return len(answer.body) + OVERHEAD_BYTES
