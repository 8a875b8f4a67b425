"""The number of values in JSON, counted piece by piece without parsing it.

Parsing and validation take time with every value and cannot be interrupted, so what strangers send is counted first.
"""

from __future__ import annotations

MAX_VALUES = 100_000
"""Texts, numbers, objects, lists and the like in one body, or in one line of an input: parsed in about 10 ms."""
STEP_BYTES = 16 * 1024
"""Bytes that are counted at once, in less than a millisecond whatever they are."""


class ValueCounter:
    """A count of values. It is exact for JSON up to empty lists and objects, which count twice, and never too low."""

    def __init__(self) -> None:
        self.values = 1
        self.has_constants = False
        """`NaN` or `Infinity` stands outside the texts, which JSON does not have."""
        self._texts = 0
        self._is_in_text = self._is_escaped = False

    def feed(self, piece: bytes) -> None:
        """Count the values of the next piece, which has at most `STEP_BYTES`."""
        if self._is_escaped:
            piece, self._is_escaped = piece[1:], not piece
        if b"\\" in piece:
            # Pairs go first, from the left: what is left before a quote escapes it. JSON has no backslash outside its texts.
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
            self._is_escaped = piece.endswith(b"\\")
        parts = piece.split(b'"')
        outside = b"".join(parts[self._is_in_text :: 2])
        self._is_in_text ^= not len(parts) % 2
        self._texts += len(parts) - 1
        self.values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        self.has_constants = self.has_constants or b"N" in outside or b"I" in outside

    @property
    def has_too_many(self) -> bool:
        """Whether there are more values than `MAX_VALUES`; bytes that are quotes and nothing else count, too."""
        return self.values > MAX_VALUES or self._texts > 4 * MAX_VALUES


def has_too_many_values(text: str) -> bool:
    """Return whether a text of JSON holds more than `MAX_VALUES`."""
    # Nearly no text has so many of these signs, even within its texts.
    if text.count(",") + text.count("[") + text.count("{") < MAX_VALUES:
        return False
    counter, data = ValueCounter(), text.encode(errors="replace")
    for start in range(0, len(data), STEP_BYTES):
        counter.feed(data[start : start + STEP_BYTES])
        if counter.has_too_many:
            return True
    return False
