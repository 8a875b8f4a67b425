"""Lines of JSON from bytes as they come, cut anywhere."""

from __future__ import annotations

from fanout.providers.transport.sse import Event, SseDecoder


class NdjsonDecoder(SseDecoder):
    """Bytes in, whole lines out, as events without a name; empty lines are left out.

    Source: https://github.com/ndjson/ndjson-spec
    """

    def feed(self, data: bytes) -> list[Event]:
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
        line = bytes(self._rest).strip()
        self._rest.clear()
        return [(None, line)] if line else []
