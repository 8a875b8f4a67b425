"""Rows of JSONL: an object on each line, stricter than Python's reader, which lets pass what others would read differently."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from fanout.core.json_text import JsonObject
from fanout.jobs.input_formats.rows import BadRow, InputRow, TextLines, UnreadableLineError

MAX_NESTING = 64
"""Lists and objects within each other; what recurses over them later must not fail."""


def read_json_rows(stream: BinaryIO) -> Iterator[InputRow | BadRow]:
    """Yield the row of each line; empty lines are skipped."""
    lines = TextLines(stream)
    while True:
        try:
            if text := next(lines).rstrip():
                yield InputRow(lines.count, _parse_object(text))
        except StopIteration:
            return
        except UnreadableLineError as error:
            yield BadRow(lines.count, str(error))


def _parse_object(text: str) -> JsonObject:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableLineError(f"is not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise UnreadableLineError("is nested too deeply") from None
    except ValueError as error:  # Python's own sentence on a number of thousands of digits
        raise UnreadableLineError(f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnreadableLineError("is not a JSON object: one object on each line is expected")
    if text.count("{") + text.count("[") > MAX_NESTING and _depth(value) > MAX_NESTING:
        raise UnreadableLineError("is nested too deeply")
    # No database and no upstream takes half a character; found here it costs one line, later a whole job.
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def _make_object(pairs: list[tuple[str, object]]) -> JsonObject:
    # JSON lets a name stand twice, and readers differ in which of the two holds.
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UnreadableLineError(f"has the name `{repeated}` twice")
    return made


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UnreadableLineError(f"holds the number {digits[:40]}, which is too large")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise UnreadableLineError(f"is not valid JSON: `{constant}` is not allowed as a number")


def _depth(value: object) -> int:
    depth, layer = 0, [value]
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        depth += 1
        layer = [inner for outer in layer for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableLineError("holds half of a character: a `\\ud800` to `\\udfff` without its other half") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_make_object, parse_float=_parse_float, parse_constant=_refuse_constant)
