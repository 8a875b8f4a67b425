"""JSON, parsed and written in a third of the standard library's time, and tolerant of what providers really send."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, TypeAlias

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.long_json import LONG_TEXT_BYTES, STEP_BYTES, parse_in_steps

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""Any JSON value. For what is passed on or stored as it is; narrow it with `isinstance` before looking inside."""
JsonObject: TypeAlias = dict[str, Any]
"""A JSON object whose fields are read or written one by one: a provider's answer, a body under construction.

A shape of our own is a dataclass or a `TypedDict` instead.
"""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
MAX_NESTING = 200
"""Levels of JSON that is read; some 250 can be written."""
# White space without line breaks: with them the search would take the square of their number.
FENCED_JSON = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL)
"""A block of code in a model's answer that is, or claims to be, JSON."""


def parse(data: bytes | bytearray) -> Any:
    r"""Return the value in `data`; a lone surrogate such as `\ud83d`, and bytes that are not UTF-8, become U+FFFD.

    A model whose tokens split an emoji sends such halves; failing the whole answer for one of them helps nobody. Neither
    does it for a log probability of `-Infinity`: such constants are null.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    # Nearly all answers are valid; only the others need the slower parser, which can replace broken characters.
    try:
        return parse_in_steps(data, allow_inf_nan=False)
    except ValueError:
        pass
    try:
        value = json.loads(data.decode("utf-8-sig", "replace"), parse_constant=_ignore_constant)
        return replace_surrogates(value, MAX_NESTING)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def dump(value: object) -> bytes:
    """Return the JSON of `value`, without spaces; lone surrogates, which no request can carry, become U+FFFD, NaN null."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(replace_surrogates(value), inf_nan_mode="null")


def dump_text_in_steps(text: str) -> list[bytes]:
    """Return the JSON of a text without its quotes, in pieces."""
    return [dump(text[start : start + STEP_BYTES])[1:-1] for start in range(0, len(text), STEP_BYTES)]


def dump_in_steps(value: object, dump_text: Callable[[str], list[bytes]] = dump_text_in_steps) -> list[bytes]:
    """Return the JSON that `dump` makes of a value, in pieces that stand one behind the other.

    One call of `dump` holds the interpreter, and the event loop with it, for 2 ms a MiB.

    Args:
        value: what is written.
        dump_text: writes a long text of it, without its quotes.
    """
    mark, texts = token_hex(16), list[str]()
    pieces, written = list[bytes](), dump(_take_out_long_texts(value, mark, texts))
    for number, part in enumerate(re.split(mark.encode() + rb"(\d{8})", written)):
        pieces += dump_text(texts[int(part)]) if number % 2 else [part]
    return pieces


# No function within `dump_in_steps`: one that calls itself is a cycle, which kept every long answer for hours.
def _take_out_long_texts(value: Any, mark: str, texts: list[str]) -> Any:
    if isinstance(value, str):
        if len(value) < LONG_TEXT_BYTES:
            return value
        texts.append(value)
        return f"{mark}{len(texts) - 1:08}"
    if isinstance(value, dict):
        return {
            _take_out_long_texts(name, mark, texts): _take_out_long_texts(item, mark, texts) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_take_out_long_texts(item, mark, texts) for item in value]
    return value


def replace_surrogates(value: Any, levels: float = math.inf) -> Any:
    """Return `value` with U+FFFD for every lone surrogate in its strings.

    Raises:
        ValueError: it has more than so many levels.
    """
    if isinstance(value, str):
        return LONE_SURROGATE.sub(REPLACEMENT, value)
    if levels < 0:
        raise ValueError("is nested too deeply")
    if isinstance(value, dict):
        return {LONE_SURROGATE.sub(REPLACEMENT, name): replace_surrogates(item, levels - 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_surrogates(item, levels - 1) for item in value]
    return value


def split_values(data: bytes | bytearray) -> list[Any]:
    """Return the JSON values that stand one behind the other in `data`, be they lines or the data of events, up to `[DONE]`.

    Raises:
        ValueError: something else stands there.
    """
    text, values, place = data.decode("utf-8-sig", "replace"), [], 0
    try:
        while (place := _skip_separators(text, place)) < len(text) and not text.startswith("[DONE]", place):
            value, place = _DECODER.raw_decode(text, place)
            values.append(replace_surrogates(value, MAX_NESTING))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return values


def _skip_separators(text: str, place: int) -> int:
    match = _SEPARATORS.match(text, place)
    return match.end() if match else place


def _ignore_constant(_: str) -> None:
    return None


_DECODER = json.JSONDecoder(parse_constant=_ignore_constant)
_SEPARATORS = re.compile(r"(?:\s|data:)*")


def encode_json(value: object, *, indent: int | None = None) -> bytes:
    """Return the JSON of an answer.

    Whatever upstreams put into it, it is valid: NaN and infinities become null, lone surrogates U+FFFD.
    """
    try:
        return to_json(value, indent=indent, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(replace_surrogates(value), indent=indent, inf_nan_mode="null")
