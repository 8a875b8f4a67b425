"""Decoding of JSON lines from bytes as they arrive, cut anywhere; also as server-sent events of one line each."""

from __future__ import annotations

from collections.abc import Iterator

from fanout.providers.transport.line_decoder import Event, LineDecoder

EVENT_FIELDS = (b"", b"event", b"id", b"retry")


class NdjsonDecoder(LineDecoder):
    """A decoder: bytes in, whole lines out, as events without a name; empty lines are omitted.

    Source: https://github.com/ndjson/ndjson-spec
    """

    def feed(self, data: bytes) -> Iterator[Event]:
        """See `LineDecoder.feed`."""
        rest = self._rest
        rest += data
        if b"\n" not in data:  # may arrive byte by byte; rescanning the buffer would be quadratic
            self._check(len(rest))
            return
        lines = bytes(rest).split(b"\n")
        self._rest = bytearray(lines.pop())
        for item in lines:
            self._check(len(item))
            yield from _parse_line(item.strip())
        self._check(len(self._rest))

    def close(self) -> Iterator[Event]:
        """Yield the last line, if no line feed ended it."""
        line = bytes(self._rest).strip()
        self._rest.clear()
        yield from _parse_line(line)


def _parse_line(line: bytes) -> Iterator[Event]:
    if line[:1] == b"{":  # nearly always
        yield None, line
        return
    # Some gateways write each line as an event: `data: {…}`, with comments and names that say no more.
    field, _, value = line.partition(b":")
    if field == b"data":
        yield None, value.strip()
    elif line and field not in EVENT_FIELDS:
        yield None, line
