"""Decoding of server-sent events from bytes as they arrive, cut anywhere."""

from __future__ import annotations

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure

MAX_EVENT_BYTES = 2**20
BOM = b"\xef\xbb\xbf"

Event = tuple[str | None, bytes]
"""The event's name, where it has one, and its data."""


class SseDecoder:
    """A decoder: bytes in, whole events out. Only CR, LF and CRLF end a line, so a UTF-8 sequence may be cut.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation; `id` and `retry`
    are for clients that reconnect.
    """

    __slots__ = ("_ended_with_cr", "_has_begun", "_max_bytes", "_rest")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_event_bytes
        self._rest = bytearray()
        self._has_begun = False
        self._ended_with_cr = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes.

        Raises:
            ProviderError: an event beyond the limit; nothing more can be fed.
        """
        if b"\r" in data or self._ended_with_cr:
            data = self._normalize_line_ends(data)
        if not self._has_begun:
            data = self._remove_bom(data)
        rest = self._rest
        if rest:
            seen = len(rest)
            rest += data
            # Only the new bytes are searched: an event that drips in byte by byte must not cost its length each time.
            if rest.find(b"\n\n", max(0, seen - 1)) < 0:
                self._check(len(rest))
                return []
            data = bytes(rest)
        blocks = data.split(b"\n\n")
        self._rest = bytearray(blocks.pop())
        if len(data) > self._max_bytes:
            self._check(max(len(self._rest), *map(len, blocks), 0))
        events: list[Event] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of nearly every provider
                events.append((None, block[6:]))
            elif event := _parse_event(block):
                events.append(event)
        return events

    def close(self) -> list[Event]:
        """Return the last event, if no blank line ended it: many servers omit the line after `[DONE]`."""
        event = _parse_event(bytes(self._rest))
        self._rest.clear()
        return [event] if event else []

    def _normalize_line_ends(self, data: bytes) -> bytes:
        if self._ended_with_cr and data.startswith(b"\n"):
            data, self._ended_with_cr = data[1:], False
        if data:
            self._ended_with_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _remove_bom(self, data: bytes) -> bytes:
        start = bytes(self._rest) + data
        if len(start) < len(BOM) and BOM.startswith(start):
            self._rest[:] = start
            return b""
        self._has_begun = True
        self._rest.clear()
        return start.removeprefix(BOM)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            sentence = f"the provider sent a single stream event of over {self._max_bytes:,} bytes"
            raise ProviderError(Failure("malformed", sentence, code="event_too_large"))


def _parse_event(block: bytes) -> Event | None:
    """Return a block of lines as an event; `None` where it has no data (comments, keep-alives)."""
    name: str | None = None
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace") or None
    return (name, b"\n".join(data)) if data else None
