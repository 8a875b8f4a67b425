"""The record of changes to the server: who changed what, when."""

from __future__ import annotations

from aiohttp import web

from fanout.core.json_text import JsonObject
from fanout.observability.logs import log
from fanout.server.lifecycle import STORE


async def record(app: web.Application, event: str, actor: str, subject: str, details: JsonObject) -> None:
    """Record a change in the audit table, and in the log; without a store in the log alone.

    Args:
        app: the server.
        event: `noun.verb`: `configuration.reloaded`.
        actor: whoever made it: `find_caller(request).actor`, or `signal`.
        subject: the id or the name of what was changed.
        details: what it is now; no secret.

    Raises:
        StoreError: the database cannot be written.
    """
    if STORE in app:
        await app[STORE].audit.record(event, actor, subject, details)
    log_change(event, actor, subject)


def log_change(event: str, actor: str, subject: str) -> None:
    """Log a change that is in the audit table already."""
    log.info("audit.recorded", change=event, actor=actor, subject=subject)
