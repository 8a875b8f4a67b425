"""structlog, set up: a line an event, JSON where nobody watches, written by a thread: a full pipe never stops the loop."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog
from pydantic_core import to_json

FLUSH_S = 0.1
MOST_LINES = 10_000

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that the running task serves."""
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def configure(
    level: Literal["debug", "info", "warning", "error"], form: Literal["json", "text"] | None, stream: TextIO = sys.stderr
) -> None:
    """Sends everything that is logged to `stream`.

    Args:
        form: `None`: text on a terminal, else JSON.
    """
    text = form == "text" or (form is None and stream.isatty())
    renderers: list[structlog.typing.Processor] = (
        # plain_traceback: the pretty ones print local variables, and with them prompts and keys.
        [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=Writer(stream).logger,
        cache_logger_on_first_use=True,
    )


def _json(event: Any, **_: Any) -> str:
    return to_json(event, fallback=str, inf_nan_mode="null").decode()


class Writer:
    """Lines wait in a bounded queue until its thread writes them; when the queue is full they are counted, not kept."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def logger(self, *_: Any) -> Writer:
        return self

    def msg(self, line: str) -> None:
        if len(self._lines) < MOST_LINES:
            self._lines.append(line)
        else:
            self._dropped += 1

    debug = info = warning = error = critical = exception = msg

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._dropped:
            lines.append(
                _json({"event": "log lines dropped: the log is read too slowly", "level": "warning", "count": self._dropped})
            )
            self._dropped = 0
        if lines:
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # whoever read the log is gone
                self._stop.set()
