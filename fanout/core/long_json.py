"""JSON with long texts, parsed in short steps.

One call of a parser holds the interpreter until its end, and the event loop with it: 20 to 110 ms for a text of
32 MiB. So long texts are cut out and worked on piece by piece: between two pieces the loop gets its turn. The rest is short,
and goes through the same parser as any JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from pydantic_core import from_json

STEP_BYTES = 64 * 1024
"""Bytes or characters that are worked on at once, in some 0.2 ms."""
LONG_BYTES = 4 * STEP_BYTES
"""JSON up to this size is parsed at once, in about half a millisecond."""
LONG_TEXT_BYTES = 4 * 1024
"""Shorter texts are not cut out, which would take longer than to parse them."""
MAX_UNIT_BYTES = 12
"""Of what cannot be cut: two escaped halves of one character."""
PLACE = re.compile(r"(?<= at line )(\d+) column (\d+)$")
"""Place of a fault in the parser's message."""


def parse_in_steps(data: bytes | bytearray, *, allow_inf_nan: bool = True) -> Any:
    """Return what `pydantic_core.from_json` makes of `data`.

    Raises:
        ValueError: it is not JSON; with the same message, but that bytes which are not UTF-8 may be placed elsewhere.
    """
    if len(data) <= LONG_BYTES:
        # Only keys repeat, so only they are cached.
        return from_json(data, allow_inf_nan=allow_inf_nan, cache_strings="keys")
    cut = _CutJson(data)
    try:
        return cut.restore(from_json(cut.short, allow_inf_nan=allow_inf_nan, cache_strings="keys"))
    except ValueError as error:
        raise ValueError(PLACE.sub(cut.restore_place, str(error))) from None


def join_in_steps(pieces: list[bytes]) -> bytearray:
    """Return pieces as one, and forget them. One call that joins 32 MiB holds the interpreter for 16 ms."""
    whole = bytearray()
    pieces.reverse()
    while pieces:
        whole += pieces.pop()
    return whole


class _CutJson:
    """JSON in which a mark stands in the place of each long text."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self._texts: dict[str, str] = {}
        self._cuts: list[tuple[int, int]] = []
        """Where a mark ends in the short JSON, and how many bytes are missing there."""
        # Nobody can have made the data with the mark in mind.
        mark, short, done = token_hex(16), bytearray(), 0
        for begin, end in self._find_texts():
            text, read = self._read_text(begin, end)
            self._texts[f"{mark}{len(self._texts):08}"] = text
            short += data[done:begin] + f"{mark}{len(self._texts) - 1:08}".encode()
            self._cuts.append((len(short), read - begin - len(mark) - 8))
            done = read
            if read < end:  # malformed: the parser finds the fault in what follows, and needs no more than that
                short += data[read : read + STEP_BYTES] + b'"' if read + STEP_BYTES < end else data[read : end + 1]
                break
        else:
            short += data[done:]
        self.short = bytes(short)

    def _find_texts(self) -> Iterator[tuple[int, int]]:
        """Yield the beginning and the end of each long text, its quotes aside."""
        begin, is_in_text, is_escaped = 0, False, False
        for start in range(0, len(self._data), STEP_BYTES):
            block = self._data[start : start + STEP_BYTES]
            if is_escaped:
                block = b"_" + block[1:]
            if is_escaped := b"\\" in block:
                # JSON has no backslash outside its texts. Pairs go first, from the left: what is left escapes what follows it.
                block = block.replace(b"\\\\", b"__").replace(b'\\"', b"__")
                is_escaped = block.endswith(b"\\")
            head, *parts = block.split(b'"')
            place = start + len(head)
            for part in parts:
                if is_in_text and place - begin >= LONG_TEXT_BYTES:
                    yield begin, place
                is_in_text = not is_in_text
                begin = place + 1
                place = begin + len(part)
        if is_in_text:
            yield begin, len(self._data)

    def _read_text(self, start: int, end: int) -> tuple[str, int]:
        """Return the text between two places, and the end of what is well-formed."""
        pieces: list[str] = []
        while start < end:
            stop = min(start + STEP_BYTES, end)
            for last in range(stop, max(start, stop - MAX_UNIT_BYTES), -1):
                try:
                    pieces.append(from_json(b'"' + self._data[start:last] + b'"'))
                except ValueError:
                    continue  # perhaps because a character is cut in two
                start = last
                break
            else:
                break
        # Not joined, which would copy all of them in one step: a text grows in its place if nothing else is made meanwhile.
        text = ""
        for piece in pieces:
            text += piece
        return text, start

    def restore(self, value: Any) -> Any:
        """Return a value with its texts in the place of their marks."""
        if isinstance(value, str):
            return self._texts.get(value, value)
        if isinstance(value, dict):
            return {self.restore(name): self.restore(item) for name, item in value.items()}
        return list(map(self.restore, value)) if isinstance(value, list) else value

    def restore_place(self, place: re.Match[str]) -> str:
        """Return a place in the short JSON as it is in the whole."""
        line, column = int(place[1]), int(place[2])
        begin = 0
        for _ in range(line - 1):
            begin = self.short.index(b"\n", begin) + 1
        missing = sum(size for end, size in self._cuts if begin < end <= begin + column)
        return f"{line} column {column + missing}"
