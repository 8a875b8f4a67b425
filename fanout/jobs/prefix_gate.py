"""Long beginnings that calls share: the first call warms the provider's cache, and those like it wait for its end."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from fanout.core.messages import Message, OtherPart, TextPart
from fanout.core.query_size import measure_query
from fanout.core.schema import Query
from fanout.jobs.pending_unit import PendingUnit

PREFIX_CHARACTERS = 4096
"""About the 1,024 tokens below which no provider caches. Source: OpenAI's and Anthropic's documents on prompt caching."""
WARM_S = 240.0
"""Time after its last use for which a beginning counts as cached: providers keep them for five minutes at least."""
MAX_WAITING = 1_024
"""Units of one model that wait for the first of their kind; further ones are sent."""
MAX_PREFIXES = 1_024
"""Beginnings of one model that are remembered."""


def find_prefix(query: Query) -> bytes | None:
    """Return the digest of the beginning of a question; `None` for one that is too short to be cached, or begins in images."""
    # Counted already: nearly every question is short, and ends here.
    if measure_query(query).text < PREFIX_CHARACTERS:
        return None
    digest, left = hashlib.sha256(), PREFIX_CHARACTERS
    for text in _iterate_texts(query):
        piece = text[:left]
        digest.update(piece.encode(errors="replace") + b"\0")
        left -= len(piece)
        if left <= 0:
            return digest.digest()
    return None


def _iterate_texts(query: Query) -> Iterator[str]:
    if query.messages is None:
        return iter(() if query.prompt is None else (query.prompt,))
    return chain.from_iterable(map(_iterate_message, query.messages))


def _iterate_message(message: Message) -> Iterator[str]:
    yield message.role
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if isinstance(message.content, tuple) else ():
        # Another image is another beginning, and its bytes are not worth reading.
        yield part.text if isinstance(part, TextPart) else str(id(part) if isinstance(part, OtherPart) else part.url)


class PrefixGate:
    """The gate of one model's units."""

    def __init__(self) -> None:
        self.waiting = 0
        """Units that wait."""
        self._warm_until: OrderedDict[bytes, float] = OrderedDict()
        self._waiting: dict[bytes, list[PendingUnit]] = {}
        """By the beginning that a unit in flight warms."""

    def admit(self, unit: PendingUnit) -> bool:
        """Return whether a unit may be sent now; else it waits until the first of its kind has ended."""
        prefix, now = unit.prefix, time.monotonic()
        if prefix is None or unit.warms:  # the latter was admitted before, and has waited for money since
            return True
        if (others := self._waiting.get(prefix)) is not None:
            if self.waiting >= MAX_WAITING:
                return True
            others.append(unit)
            self.waiting += 1
            return False
        if self._warm_until.get(prefix, 0.0) <= now:
            self._waiting[prefix] = []
            unit.warms = True
        else:
            self._keep_warm(prefix, now)
        return True

    def release(self, unit: PendingUnit) -> list[PendingUnit]:
        """Return the units that waited for one that has ended, however it ended."""
        if not unit.warms or unit.prefix is None:
            return []
        unit.warms = False
        self._keep_warm(unit.prefix, time.monotonic())
        released = self._waiting.pop(unit.prefix, [])
        self.waiting -= len(released)
        return released

    def _keep_warm(self, prefix: bytes, now: float) -> None:
        self._warm_until[prefix] = now + WARM_S
        self._warm_until.move_to_end(prefix)
        if len(self._warm_until) > MAX_PREFIXES:
            self._warm_until.popitem(last=False)
