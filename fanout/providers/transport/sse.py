"""Decoding of server-sent events from bytes as they arrive, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from fanout.providers.transport.line_decoder import Event, LineDecoder

BOM = b"\xef\xbb\xbf"


class SseDecoder(LineDecoder):
    """A decoder: bytes in, whole events out. Only CR, LF and CRLF end a line, so a UTF-8 sequence may be cut.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation; `id` and `retry`
    are for clients that reconnect. Fields outside the standard are read as servers use them: see `_parse_block`.
    """

    __slots__ = ("_ended_with_cr", "_has_begun")

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._has_begun = False
        self._ended_with_cr = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """See `LineDecoder.feed`."""
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
                return
            data = bytes(rest)
        blocks = data.split(b"\n\n")
        self._rest = bytearray(blocks.pop())
        is_large = len(data) > self._max_bytes
        for block in blocks:
            # No block can be longer than all bytes together, so most reads need no check of each.
            if is_large:
                self._check(len(block))
            if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of nearly every provider
                yield None, block[6:]
            else:
                yield from _parse_block(block)
        self._check(len(self._rest))

    def close(self) -> Iterator[Event]:
        """Yield the last event without its blank line, which many servers omit after `[DONE]`."""
        block = bytes(self._rest)
        self._rest.clear()
        yield from _parse_block(block)

    def _normalize_line_ends(self, data: bytes) -> bytes:
        # A CRLF cut between two reads is one line end; read as two, it would end the event early.
        if self._ended_with_cr and data.startswith(b"\n"):
            data, self._ended_with_cr = data[1:], False
        if data:
            self._ended_with_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _remove_bom(self, data: bytes) -> bytes:
        # The mark may come a byte at a time.
        start = bytes(self._rest) + data
        if len(start) < len(BOM) and BOM.startswith(start):
            self._rest[:] = start
            return b""
        self._has_begun = True
        self._rest.clear()
        return start.removeprefix(BOM)


def _parse_block(block: bytes) -> Iterator[Event]:
    """Yield the event of a block of lines; none where it has no data (comments, keep-alives).

    Beyond the standard, which ignores unknown fields and knows one event a block:
    - JSON that stands bare is data (Google's errors).
    - A line `error: …` is an event of that name (llama.cpp's older servers).
    - Events may be kept apart by single line ends: no JSON goes on with `{` or `[` behind a `}` or `]`.
    """
    name: str | None = None
    data: list[bytes] = []
    is_bare = False
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            # The name of the next event, whose blank line before it was left out.
            if name and data and _ends_value(data[-1]):
                yield name, b"\n".join(data)
                data = []
            name, is_bare = value.decode("utf-8", "replace") or None, False
        elif field == b"error":
            if data:
                yield name, b"\n".join(data)
            yield "error", value
            name, data, is_bare = None, [], False
        elif field == b"data" or is_bare or line[:1] in (b"{", b"["):
            is_bare = field != b"data"
            piece = line if is_bare else value
            if data and _ends_value(data[-1]) and piece.lstrip()[:1] in (b"{", b"["):
                yield name, b"\n".join(data)
                data = []
            data.append(piece)
    if data:
        yield name, b"\n".join(data)


def _ends_value(line: bytes) -> bool:
    return line.rstrip()[-1:] in (b"}", b"]")
