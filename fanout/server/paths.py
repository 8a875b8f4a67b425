"""Paths as clients really write them: with slashes too many, or as Azure has them, they name the same resource."""

from __future__ import annotations

import re

from aiohttp.http_parser import RawRequestMessage

SLASHES = re.compile(r"/{2,}")
AZURE = re.compile(r"/openai/(?:v1/)?(?!deployments/)")
"""Beginning of Azure's paths that name no model. Source: openai 3.51.0, `lib/azure.py`; its newer API begins `/openai/v1`."""


def tidy_path(message: RawRequestMessage) -> RawRequestMessage:
    """Return a request's first line and head with its path as it is routed."""
    raw = message.url.raw_path  # still quoted, so that `%2F` in a model's name remains part of it
    if "//" not in raw and not raw.endswith("/") and not raw.startswith("/openai/"):
        return message
    tidied = SLASHES.sub("/", raw).rstrip("/") or "/"
    # Deployments have endpoints of their own, since their path names the model.
    if azure := AZURE.match(tidied):
        tidied = f"/v1/{tidied[azure.end() :]}"
    return message._replace(url=message.url.with_path(tidied, encoded=True, keep_query=True))
