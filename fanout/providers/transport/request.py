"""Requests to providers, written."""

from __future__ import annotations

from typing import NamedTuple

from multidict import CIMultiDict
from yarl import URL

from fanout.core.json_text import JsonObject, dump, dump_in_steps
from fanout.core.query_size import measure_query
from fanout.core.schema import Query

MAX_INLINE_ENCODE_CHARACTERS = 128 * 1024
"""A longer query is encoded in a thread: so much takes up to half a millisecond."""


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


def write_body(fields: JsonObject, query: Query) -> WrittenBody:
    """Return the JSON of a request."""
    return dump(fields) if measure_query(query).whole <= MAX_INLINE_ENCODE_CHARACTERS else dump_in_steps(fields)
