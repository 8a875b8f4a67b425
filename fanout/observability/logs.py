"""The log: one line for each event, JSON unless it goes to a terminal, written by a thread: a full pipe stops nothing."""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TextIO

import orjson
import structlog
from pydantic_core import PydanticSerializationError, to_json

from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_safe_json, to_safe_text, to_single_line

Event = MutableMapping[str, Any]
"""A log line before it is written, as structlog passes it on."""
FLUSH_S = 0.1
MAX_QUEUED_LINES = 10_000
CLOSE_TIMEOUT_S = 1.0
"""Time that the end of the process waits for a slow reader."""
MAX_CAUSES = 5
"""Exceptions that a traceback follows behind the first."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the running task serves."""
account: ContextVar[str | None] = ContextVar("account", default=None)
"""Account of the key that the request came with."""
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def configure(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["json", "text"] | None,
    stream: TextIO = sys.stderr,
    *,
    worker: int | None = None,
    is_supervisor: bool = False,
) -> None:
    """Send everything that is logged to `stream`: our events, and the messages that libraries give to `logging`.

    Args:
        level: the lowest that is logged.
        form: without one it is text on a terminal, else JSON.
        stream: where it goes.
        worker: this process's number among several that write the same log; it stands in each line.
        is_supervisor: this process starts no thread.
    """
    renderers: list[structlog.typing.Processor] = [structlog.processors.JSONRenderer(serializer=to_json_line)]
    if form == "text" or (form is None and stream.isatty()):
        renderers = [clean_text, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    writer = (DirectLogWriter if is_supervisor else LogWriter)(stream, is_shared=worker is not None)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if worker is None else [partial(add_worker, worker)]),
            add_request,
            add_traceback,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=writer.logger,
        cache_logger_on_first_use=not is_supervisor,  # a worker, forked from it, has another
    )
    global info
    is_json, has_info = renderers[0] is not clean_text, level in ("debug", "info")
    info = partial(_write_json, writer, worker) if is_json and has_info and not is_supervisor else _log_info
    # Warnings alone: below them libraries log addresses and bodies.
    logging.basicConfig(handlers=[LibraryLogHandler()], level=logging.WARNING, force=True)


def _log_info(name: str, event: JsonObject) -> None:
    log.info(name, **event)


info: Callable[[str, JsonObject], None] = _log_info
"""Writes an event of level `info` that has its `request_id` and `account` already.

For the line that every request has: structlog takes 7.5 µs to make it JSON, this 3 (2026-11-28).
"""


def _write_json(writer: LogWriter, worker: int | None, name: str, event: JsonObject) -> None:
    event |= {"event": name, "level": "info", "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    if worker is not None:
        event.setdefault("worker", worker)
    writer.msg(to_json_line(event))


def to_json_line(event: object, **_: object) -> str:
    """Return an event as one line of JSON, whatever it holds."""
    try:
        return to_safe_json(orjson.dumps(event).decode())
    except orjson.JSONEncodeError:
        pass
    try:  # a number of more than 64 bits, a name that is no text
        return to_safe_json(to_json(event, fallback=str, inf_nan_mode="null").decode())
    except PydanticSerializationError:  # a lone surrogate, as headers and upstreams may send
        return json.dumps(event, default=str)


def clean_text(_: object, __: str, event: Event) -> Event:
    """Clean everything that a text log shows: what callers and upstreams wrote steers no terminal, and begins no line."""
    clean: Event = {}
    for name, value in event.items():
        if isinstance(value, str):  # anything else is shown as Python writes it, with escapes
            value = to_safe_text(value) if name == "exception" else to_single_line(value)  # a traceback is ours, and has lines
        clean[to_single_line(name)] = value
    return clean


def add_worker(number: int, _: object, __: str, event: Event) -> Event:
    """Add the number of the process, of several that write one log."""
    event.setdefault("worker", number)
    return event


def add_request(_: object, __: str, event: Event) -> Event:
    """Add the id and the account of the request that an event belongs to."""
    if "request_id" not in event and (serving := request_id.get()):
        event["request_id"] = serving
    if "account" not in event and (owner := account.get()):
        event["account"] = owner
    return event


def add_traceback(_: object, __: str, event: Event) -> Event:
    """Replace `exc_info` by `exception`: where it happened, and its type."""
    # Local variables and the exception's message are left out: both may hold a prompt, an answer or a key.
    exc_info = event.pop("exc_info", None)
    error = sys.exc_info()[1]
    if isinstance(exc_info, BaseException):
        error = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    if exc_info and error:
        event["exception"] = "\n".join(_format_traceback(error, MAX_CAUSES))
    return event


def _format_traceback(error: BaseException, causes: int) -> Iterator[str]:
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind and causes:
        yield from _format_traceback(behind, causes - 1)
        yield "which led to:"
    if isinstance(error, BaseExceptionGroup) and causes:
        for member in error.exceptions[:MAX_CAUSES]:
            yield from _format_traceback(member, causes - 1)
            yield "one of:"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    # The system's message for the number: `strerror` may have been set to anything.
    system = f": {os.strerror(error.errno)}" if isinstance(error, OSError) and isinstance(error.errno, int) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{system}"


class LibraryLogHandler(logging.Handler):
    """Messages of libraries as our events, without their arguments, which may quote what was sent."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a library's message."""
        sentence = str(record.msg).split("\n", 1)[0][:200]
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write(sentence, logger=record.name, exc_info=record.exc_info)


class LogWriter:
    """A thread that writes the log. Lines wait in a bounded queue; when it is full they are dropped and counted."""

    def __init__(self, stream: TextIO, *, is_shared: bool = False) -> None:
        self._stream, self._is_shared = stream, is_shared
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._start()

    def _start(self) -> None:
        # A daemon: a reader that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def logger(self, *_: object) -> LogWriter:
        """Return this writer, as structlog's logger factory."""
        return self

    def msg(self, line: str) -> None:
        """Queue a line."""
        # Neither blocks nor grows: a reader that hangs must not stop or fill the process.
        if len(self._lines) < MAX_QUEUED_LINES:
            self._lines.append(line)
        else:
            self._dropped += 1

    debug = info = warning = error = critical = exception = msg

    def close(self) -> None:
        """Write the last lines and end the thread."""
        self._stop.set()
        self._thread.join(timeout=CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(to_json_line({"event": "log.lines_dropped", "level": "warning", "count": dropped}))
        if lines:
            try:
                # Others write to the same pipe: what is no longer than this stays together. Source: pipe(7), PIPE_BUF
                for text in join_lines(lines, select.PIPE_BUF) if self._is_shared else ["\n".join(lines) + "\n"]:
                    self._write(text)
            except (OSError, ValueError):  # the reader of the log has left
                self._stop.set()

    def _write(self, text: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:
            self._stream.write(text)
            return
        # Past the stream's own buffer, which loses what a non-blocking pipe refuses and holds its lock while a full one waits.
        remaining = memoryview(text.encode(errors="backslashreplace"))
        while remaining:
            try:
                remaining = remaining[os.write(descriptor, remaining) :]
            except BlockingIOError:  # another process made the pipe non-blocking
                time.sleep(FLUSH_S)


class DirectLogWriter(LogWriter):
    """A writer without a thread, for the few lines of a supervisor; what a full pipe does not take is dropped."""

    def _start(self) -> None:
        pass

    def msg(self, line: str) -> None:
        """Write a line, unless that would wait."""
        with suppress(OSError, ValueError):
            if select.select([], [self._stream], [], 0)[1]:
                self._write(line + "\n")

    debug = info = warning = error = critical = exception = msg


def join_lines(lines: Iterable[str], limit: int) -> Iterator[str]:
    """Join lines to texts of at most so many bytes; a longer line is one of its own."""
    text, size = "", 0
    for line in lines:
        length = len(line.encode(errors="backslashreplace")) + 1
        if text and size + length > limit:
            yield text
            text, size = "", 0
        text += line + "\n"
        size += length
    if text:
        yield text
