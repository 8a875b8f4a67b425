"""The response to a request, whichever client has sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection

from fanout.providers.transport.connections import TakenConnection


class Response(Protocol):
    """The response to a request: aiohttp's, or an `OwnResponse`."""

    @property
    def status(self) -> int:
        """HTTP's."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the head."""

    @property
    def content(self) -> aiohttp.StreamReader:
        """The body, as it comes."""

    @property
    def connection(self) -> Connection | TakenConnection | None:
        """The connection, until the body has come to its end."""

    def close(self) -> None:
        """Close the connection, unless the body has come to its end."""


MAX_LENGTH_DIGITS = 18
"""Of a stated length. Python refuses to read a number of some thousand, which parsers of HTTP take if they are zeros."""


def read_length(headers: Mapping[str, str]) -> int | None:
    """Return the stated length of a body; `None` where none is stated that could be one."""
    length = headers.get(hdrs.CONTENT_LENGTH, "")
    return int(length) if length.isdecimal() and len(length) <= MAX_LENGTH_DIGITS else None
