"""Paths as clients really write them: a slash too many names the same resource."""

from __future__ import annotations

import re

from aiohttp import web
from yarl import URL

SLASHES = re.compile(r"/{2,}")


def tidy_path(path: str) -> str:
    """Return a path without doubled and trailing slashes."""
    return SLASHES.sub("/", path).rstrip("/") or "/"


class TolerantRouter(web.UrlDispatcher):
    """The router, which takes a path with slashes too many for the one without them, where there is no such path itself."""

    async def resolve(self, request: web.Request) -> web.UrlMappingMatchInfo:
        """Return the route of a request."""
        found = await super().resolve(request)
        raw = request.rel_url.raw_path  # still quoted, so that `%2F` in a model's name remains part of it
        if not isinstance(found.http_exception, web.HTTPNotFound) or tidy_path(raw) == raw:
            return found
        tidied = URL.build(path=tidy_path(raw), query_string=request.rel_url.raw_query_string, encoded=True)
        return await super().resolve(request.clone(rel_url=tidied))
