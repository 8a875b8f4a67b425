"""An upstream that keeps a limit of its own on every model, says in its headers what is left, and refuses what is beyond."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tests.support.connection import Request
from tests.support.playbook import Script
from tests.support.upstreams import Upstream


@dataclass(slots=True)
class _Window:
    began_s: float
    used: int = 0


class Enforcing(Upstream):
    """So many requests for a model in any window of `per_s`, which begins with its first request."""

    def __init__(self, limit: int, per_s: float) -> None:
        super().__init__()
        self.limit, self.per_s = limit, per_s
        self.refused = 0
        self._windows: dict[str, _Window] = {}

    def _script(self, request: Request) -> Script:
        script, now = super()._script(request), time.monotonic()
        window = self._windows.get(request.model)
        if window is None or now - window.began_s >= self.per_s:
            window = self._windows[request.model] = _Window(now)
        reset_s = window.began_s + self.per_s - now
        if window.used >= self.limit:
            self.refused += 1
            # As refusals are where nobody had to be asked to wait: only the headers say how long.
            script = replace(script, status=429, sleep=0.0)
        else:
            window.used += 1
        left = self.limit - window.used
        return replace(script, limit=str(self.limit), remaining=str(left), reset=f"{reset_s * 1e3:.0f}ms")
