"""An upstream that limits the rate of every model, reports the rest in its headers, and refuses calls beyond the limit."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tests.support.upstream.connection import Request
from tests.support.upstream.script import Script
from tests.support.upstream.server import Upstream


@dataclass(slots=True)
class _Window:
    started_s: float
    used: int = 0


class RateLimitedUpstream(Upstream):
    """An upstream that allows `limit` requests for a model in a window of `per_s`, which begins with its first request."""

    def __init__(self, limit: int, per_s: float) -> None:
        super().__init__()
        self.limit, self.per_s = limit, per_s
        self.refusals = 0
        self._windows: dict[str, _Window] = {}

    def _choose_script(self, request: Request) -> Script:
        script, now = super()._choose_script(request), time.monotonic()
        window = self._windows.get(request.model)
        if window is None or now - window.started_s >= self.per_s:
            window = self._windows[request.model] = _Window(now)
        reset_s = window.started_s + self.per_s - now
        if window.used >= self.limit:
            self.refusals += 1
            # Without Retry-After: only the headers report how long to wait.
            script = replace(script, status=429, sleep=0.0)
        else:
            window.used += 1
        remaining = self.limit - window.used
        return replace(script, limit=str(self.limit), remaining=str(remaining), reset=f"{reset_s * 1e3:.0f}ms")
