"""Paths as clients really write them: a slash too many names the same resource."""

from __future__ import annotations

import re

from aiohttp.http_parser import RawRequestMessage

SLASHES = re.compile(r"/{2,}")


def tidy_path(message: RawRequestMessage) -> RawRequestMessage:
    """Return a request's first line and head without doubled and trailing slashes in its path."""
    raw = message.url.raw_path  # still quoted, so that `%2F` in a model's name remains part of it
    if "//" not in raw and not raw.endswith("/"):
        return message
    tidied = SLASHES.sub("/", raw).rstrip("/") or "/"
    return message._replace(url=message.url.with_path(tidied, encoded=True, keep_query=True))
