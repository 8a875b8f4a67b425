"""Content of an answer beside its text, put together from the pieces of a stream."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fanout.core.json_text import JsonObject

GROWING = frozenset({"text", "summary", "data", "transcript", "thinking"})
"""Texts that come in pieces; any other value of a later piece replaces the one before."""
IN_PIECES = frozenset({"reasoning_details", "executed_tools"})
"""Lists whose items come in pieces, each with the `index` of its item. Source: OpenRouter; Groq."""


def merge_extras(pieces: Iterable[JsonObject]) -> JsonObject:
    """Return what the pieces of a stream add up to: lists grow, and so do texts within objects."""
    merged: JsonObject = {}
    for piece in pieces:
        for name, value in piece.items():
            known = merged.get(name)
            if isinstance(known, list) and isinstance(value, list):
                # Citations and images arrive a few at a time; replacing the list would keep the last piece alone.
                known.extend(value)
            elif isinstance(known, dict) and isinstance(value, dict):
                _add_fields(known, value)
            else:
                merged[name] = list(value) if isinstance(value, list) else _begin(value) if isinstance(value, dict) else value
    return {name: _finish(name, value) for name, value in merged.items()}


class _Pieces(list[str]):
    """A growing text: adding strings would copy a long one for each piece."""


def _begin(fields: JsonObject) -> JsonObject:
    begun: JsonObject = {}
    _add_fields(begun, fields)
    return begun


def _add_fields(known: JsonObject, fields: JsonObject) -> None:
    for name, value in fields.items():
        if name in GROWING and isinstance(value, str):
            pieces = known.get(name)
            # A provider may send null, or a value of another type, before the first text.
            if not isinstance(pieces, _Pieces):
                pieces = known[name] = _Pieces()
            pieces.append(value)
        # A later null is "no news", as in OpenAI's deltas: it must not erase what came before.
        elif value is not None or name not in known:
            known[name] = value


def _finish(name: str, value: object) -> object:
    if isinstance(value, dict):
        return _join(value)
    return _join_items(value) if name in IN_PIECES and isinstance(value, list) else value


def _join(fields: JsonObject) -> JsonObject:
    return {name: _join_pieces(name, value) if isinstance(value, _Pieces) else value for name, value in fields.items()}


def _join_pieces(name: str, pieces: list[str]) -> str:
    """Return a text in pieces as one; a piece of base64 that is padded cannot stand before another."""
    if name == "data" and any(piece.endswith("=") for piece in pieces[:-1]):
        with suppress(ValueError):
            return b64encode(b"".join(map(b64decode, pieces))).decode()
    return "".join(pieces)


def _join_items(items: list[Any]) -> list[Any]:
    """Return the items of a list with neighbours of the same `index` and type put together."""
    joined: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            joined.append(item)
        # Neighbours only, and `True` is no index: two items that a provider numbers alike by mistake stay apart unless
        # adjacent.
        elif joined and isinstance(joined[-1], dict) and type(item.get("index")) is int and _is_same(joined[-1], item):
            _add_fields(joined[-1], item)
        else:
            joined.append(_begin(item))
    return [_join(item) if isinstance(item, dict) else item for item in joined]


def _is_same(one: JsonObject, other: JsonObject) -> bool:
    return bool(one.get("index") == other["index"] and one.get("type") == other.get("type", one.get("type")))
