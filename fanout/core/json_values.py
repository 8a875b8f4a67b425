"""The number of values in JSON, counted piece by piece without parsing it.

Parsing and validation take time with every value and cannot be interrupted, so what strangers send is counted first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

MAX_VALUES = 100_000
"""Texts, numbers, objects, lists and the like in one body, or in one line of an input: parsed in about 10 ms."""
DIGITS = bytes.maketrans(b"123456789EN", b"000000000eI")
"""Makes a number zeros, `E` an `e`, and the N of `NaN` the I of `Infinity`, so that each kind is found by one search."""
MANY_DIGITS = b"0" * 150
"""Half of what a number beyond floats has without an exponent."""
TOO_LARGE = "is a number too large: at most 1.7976931348623157e308 is allowed"
STEP_BYTES = 16 * 1024
"""Bytes that are counted at once, in less than a millisecond whatever they are."""


class ValueCounter:
    """A count of values. It is exact for JSON up to empty lists and objects, which count twice, and never too low."""

    def __init__(self) -> None:
        self.values = 1
        self.may_be_infinite = False
        """`NaN`, `Infinity`, an exponent or very many digits stand outside the texts: some number may be none, or infinite."""
        self._end = b""
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
        if not self.may_be_infinite:
            outside = self._end + outside.translate(DIGITS)
            self.may_be_infinite = b"I" in outside or b"0e" in outside or MANY_DIGITS in outside
            self._end = outside[-len(MANY_DIGITS) :]

    @property
    def has_too_many(self) -> bool:
        """True for more values than `MAX_VALUES`; bytes that are quotes and nothing else count, too."""
        return self.values > MAX_VALUES or self._texts > 4 * MAX_VALUES


def has_more_values(data: bytes | bytearray, most: int) -> bool:
    """Return whether JSON holds more values than `most`."""
    # Each takes a byte; and nearly no text has so many of these signs, even within its texts.
    if len(data) <= most or data.count(b",") + data.count(b"[") + data.count(b"{") < most:
        return False
    counter = ValueCounter()
    for start in range(0, len(data), STEP_BYTES):
        counter.feed(bytes(data[start : start + STEP_BYTES]))
        if counter.values > most:
            return True
    return False


def find_infinite(value: object) -> Iterator[tuple[str | int, ...]]:
    """Yield the places of numbers that JSON cannot hold: NaN, and infinite ones, as a written `1e999` becomes."""
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            yield place
        elif isinstance(value, dict):
            waiting += [((*place, name), inner) for name, inner in value.items() if not isinstance(inner, str)]
        elif isinstance(value, list | tuple):
            waiting += [((*place, index), inner) for index, inner in enumerate(value) if not isinstance(inner, str)]


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
