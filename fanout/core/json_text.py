"""JSON, parsed and written in a third of the standard library's time, and tolerant of what providers really send."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic_core import PydanticSerializationError, from_json, to_json

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


def parse(data: bytes) -> Any:
    r"""Return the value in `data`; a lone surrogate such as `\ud83d`, and bytes that are not UTF-8, become U+FFFD.

    A model whose tokens split an emoji sends such halves; failing the whole answer for one of them helps nobody. Neither
    does it for a log probability of `-Infinity`: such constants are null.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    # Nearly all answers are valid; only the others need the slower parser, which can replace broken characters.
    # Only keys repeat, so only they are cached.
    try:
        return from_json(data, allow_inf_nan=False, cache_strings="keys")
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


def split_values(data: bytes) -> list[Any]:
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
