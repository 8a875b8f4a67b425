"""Server-sent events from bytes as they come, cut anywhere."""

from __future__ import annotations

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure

MAX_EVENT_BYTES = 2**20
BOM = b"\xef\xbb\xbf"

Event = tuple[str | None, bytes]
"""The event's name, where it has one, and its data."""


class SseDecoder:
    """Bytes in, whole events out. Only CR, LF and CRLF end a line, so pieces may be cut inside a UTF-8 sequence.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation; `id` and `retry`
    are for clients that reconnect.
    """

    __slots__ = ("_after_cr", "_begun", "_highest", "_rest")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._highest = max_event_bytes
        self._rest = bytearray()
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes.

        Raises:
            ProviderError: an event beyond the limit; nothing more can be fed.
        """
        if b"\r" in data or self._after_cr:
            data = self._with_line_feeds(data)
        if not self._begun:
            data = self._without_bom(data)
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
        if len(data) > self._highest:
            self._check(max(len(self._rest), *map(len, blocks), 0))
        events: list[Event] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of nearly every provider
                events.append((None, block[6:]))
            elif event := _event(block):
                events.append(event)
        return events

    def close(self) -> list[Event]:
        """The last event, where no blank line ended it: many servers leave it out behind `[DONE]`."""
        event = _event(bytes(self._rest))
        self._rest.clear()
        return [event] if event else []

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data, self._after_cr = data[1:], False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, data: bytes) -> bytes:
        start = bytes(self._rest) + data
        if len(start) < len(BOM) and BOM.startswith(start):
            self._rest[:] = start
            return b""
        self._begun = True
        self._rest.clear()
        return start.removeprefix(BOM)

    def _check(self, size: int) -> None:
        if size > self._highest:
            sentence = f"the provider sent a single stream event of over {self._highest:,} bytes"
            raise ProviderError(Failure("malformed", sentence, code="event_too_large"))


def _event(block: bytes) -> Event | None:
    """A block of lines as an event; `None` where no data is in it (comments, keep-alives)."""
    name: str | None = None
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace") or None
    return (name, b"\n".join(data)) if data else None
