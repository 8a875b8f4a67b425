"""Decoding of JSON lines from bytes as they arrive, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from fanout.providers.transport.line_decoder import Event, LineDecoder


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
            if line := item.strip():
                yield None, line
        self._check(len(self._rest))

    def close(self) -> Iterator[Event]:
        """Yield the last line, if no line feed ended it."""
        line = bytes(self._rest).strip()
        self._rest.clear()
        if line:
            yield None, line
