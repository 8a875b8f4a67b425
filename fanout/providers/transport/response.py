"""The response to a request, whichever client has sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import aiohttp
from aiohttp.connector import Connection


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
    def content_length(self) -> int | None:
        """The stated length of the body."""

    @property
    def connection(self) -> Connection | None:
        """The connection, until the body has come to its end."""

    def close(self) -> None:
        """Close the connection, unless the body has come to its end."""
