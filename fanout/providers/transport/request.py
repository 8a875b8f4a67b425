"""Requests to providers, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

from multidict import CIMultiDict
from yarl import URL

from fanout.core.json_text import JsonObject, dump, dump_in_steps, dump_text_in_steps
from fanout.core.messages import TextPart
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Query, RequestScope
from fanout.limits.shared_capacity import SharedCapacity

MAX_INLINE_ENCODE_CHARACTERS = 128 * 1024
"""A longer query is encoded in a thread: so much takes up to half a millisecond."""


BODIES = SharedCapacity(512 * 2**20)
"""Characters of all requests that are on their way: one large request to hundreds of models must not take all memory.

Calls that find no room wait within their attempt.
"""
WrittenBody = bytes | list[bytes]
"""The JSON of a request; a large one in pieces, which requests of the same prompt share."""


class HttpRequest(NamedTuple):
    """A request, encoded."""

    url: URL
    headers: CIMultiDict[str]
    body: WrittenBody

    @property
    def pieces(self) -> list[bytes]:
        """The body in pieces."""
        return [self.body] if isinstance(self.body, bytes) else self.body


class SharedTexts:
    """The JSON of the texts of a request's question, written once for all of its calls, whatever their formats."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[str, list[bytes]]] = {}
        """By identity: to compare long texts would cost what is to be saved."""
        self._lock = Lock()

    def write(self, text: str) -> list[bytes]:
        """Return the JSON of a text without its quotes, in pieces."""
        with self._lock:  # one of the threads writes it for all that wait for it
            found = self._written.get(id(text))
            if found is None:
                found = self._written[id(text)] = (text, dump_text_in_steps(text))
            return found[1]


_TEXTS: WeakKeyDictionary[RequestScope, SharedTexts] = WeakKeyDictionary()
"""Those of each running request; they go when its last call does."""
_LOCK = Lock()


def write_body(fields: JsonObject, call: Call) -> WrittenBody:
    """Return the JSON of a request."""
    if measure_query(call.query).whole <= MAX_INLINE_ENCODE_CHARACTERS:
        return dump(fields)
    return dump_in_steps(fields, share_texts(call))


def share_texts(call: Call) -> Callable[[str], list[bytes]]:
    """Return what writes the long texts of a call's body."""
    with _LOCK:
        shared = _TEXTS.setdefault(call.scope, SharedTexts())
    # Others are made for this call alone: to keep them would take memory for each model.
    of_question = set(map(id, _list_texts(call.query)))
    return lambda text: shared.write(text) if id(text) in of_question else dump_text_in_steps(text)


def _list_texts(query: Query) -> Iterator[str]:
    if query.prompt is not None:
        yield query.prompt
    yield from (text for text in query.inputs or () if isinstance(text, str))
    for message in query.messages or ():
        if isinstance(message.content, str):
            yield message.content
        elif message.content is not None:
            yield from (part.text for part in message.content if isinstance(part, TextPart))
