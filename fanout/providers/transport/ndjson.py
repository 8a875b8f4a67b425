"""Decoding of JSON lines from bytes as they arrive, cut anywhere."""

from __future__ import annotations

from fanout.providers.transport.sse import Event, SseDecoder


class NdjsonDecoder(SseDecoder):
    """A decoder: bytes in, whole lines out, as events without a name; empty lines are omitted.

    Source: https://github.com/ndjson/ndjson-spec
    """

    def feed(self, data: bytes) -> list[Event]:
        """See `SseDecoder.feed`."""
        rest = self._rest
        rest += data
        if b"\n" not in data:  # only the new bytes are searched: a line may drip in byte by byte
            self._check(len(rest))
            return []
        lines = bytes(rest).split(b"\n")
        self._rest = bytearray(lines.pop())
        self._check(max(len(self._rest), *map(len, lines)))
        return [(None, line) for item in lines if (line := item.strip())]

    def close(self) -> list[Event]:
        """Return the last line, if no line feed ended it."""
        line = bytes(self._rest).strip()
        self._rest.clear()
        return [(None, line)] if line else []
