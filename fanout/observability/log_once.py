"""A log line for something that may happen thousands of times a second."""

from __future__ import annotations

import time

from fanout.observability.logs import log

INTERVAL_S = 60.0


class LogOnce:
    """An error that is logged at most once a minute, with how often it has happened since the line before."""

    def __init__(self, event: str, **fields: object) -> None:
        self._event, self._fields = event, fields
        self._next_at = 0.0
        self._count = 0

    def write(self, **fields: object) -> None:
        """Count an occurrence, and log it unless a line was written within the last minute."""
        self._count += 1
        now = time.monotonic()
        if now >= self._next_at:
            log.error(self._event, count=self._count, **self._fields, **fields)
            self._next_at, self._count = now + INTERVAL_S, 0
