"""Content of an answer beside its text, in the fields where OpenAI's format and the hosts that extend it have it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from fanout.core.json_text import JsonObject
from fanout.providers.mapping.json_fields import as_object, as_text

THINKING_BLOCKS = "thinking_blocks"
"""Thoughts with the signatures without which Anthropic's models do not take them back, in Anthropic's form."""
THINKING_TYPES = frozenset({"thinking", "redacted_thinking"})
READ_APART = frozenset({"role", "content", "refusal", "tool_calls", "function_call", "reasoning", "reasoning_content"})
"""Fields of a message that `openai_answers` reads."""
WITHOUT_CONTENT = frozenset({"id", "index", "name", "object", "prefix", "status", "type"})
"""Fields in which some hosts say something about a message."""
NOT_PASSED_ON = READ_APART | WITHOUT_CONTENT
BESIDE_CHOICES = frozenset({"citations", "search_results", "images", "videos", "related_questions", "web_search"})
"""Fields of an answer itself that belong to its message. Source: Perplexity, xAI; `web_search`: Z.ai."""
GROWING = frozenset({"text", "summary", "data", "transcript", "thinking"})
"""Texts that come in pieces; any other value of a later piece replaces the one before."""
IN_PIECES = frozenset({"reasoning_details", "executed_tools"})
"""Lists whose items come in pieces, each with the `index` of its item. Source: OpenRouter; Groq."""


def pick_extras(message: Mapping[str, Any]) -> JsonObject:
    """Return the content beside the text of a message in OpenAI's format: all of its fields that nothing else reads."""
    extra = {name: value for name, value in message.items() if name not in NOT_PASSED_ON and not _is_blank(value)}
    content = message.get("content")
    if type(content) is list:
        for part in content:
            _add_part(extra, part)
    return extra


def make_image(media_type: str, base64: str) -> JsonObject:
    """Return an item of `images`, as OpenRouter has them."""
    return make_image_link(f"data:{media_type};base64,{base64}")


def make_image_link(url: str) -> JsonObject:
    """Return an item of `images` at an address."""
    return {"type": "image_url", "image_url": {"url": url}}


def merge_extras(pieces: Iterable[JsonObject]) -> JsonObject:
    """Return what the pieces of a stream add up to: lists grow, and so do texts within objects."""
    merged: JsonObject = {}
    for piece in pieces:
        for name, value in piece.items():
            known = merged.get(name)
            if isinstance(known, list) and isinstance(value, list):
                known.extend(value)
            elif isinstance(known, dict) and isinstance(value, dict):
                _add_fields(known, value)
            else:
                merged[name] = list(value) if isinstance(value, list) else _begin(value) if isinstance(value, dict) else value
    return {name: _finish(name, value) for name, value in merged.items()}


def list_news(known: object, value: object) -> object:
    """Return the part of a list that is new; some hosts send all of it with every chunk (Perplexity)."""
    if isinstance(known, list) and isinstance(value, list) and value[: len(known)] == known:
        return value[len(known) :]
    return None if known == value else value


def _add_part(extra: JsonObject, part: object) -> None:
    """Add a part of content that is neither text nor thoughts."""
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    if not isinstance(part, dict) or kind in ("text", "thinking", "refusal"):
        return
    image = part.get("image_url")
    if kind == "image_url" and (url := as_text(image) or as_text(as_object(image).get("url"))):
        extra["images"] = [*extra.get("images", ()), make_image_link(url)]
    else:
        extra["content_parts"] = [*extra.get("content_parts", ()), part]


def _is_blank(value: object) -> bool:
    """Return whether a value holds nothing: hosts written in Go send every field, empty."""
    return not any(value.values()) if isinstance(value, dict) else not value


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
            if not isinstance(pieces, _Pieces):
                pieces = known[name] = _Pieces()
            pieces.append(value)
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
        elif joined and isinstance(joined[-1], dict) and type(item.get("index")) is int and _is_same(joined[-1], item):
            _add_fields(joined[-1], item)
        else:
            joined.append(_begin(item))
    return [_join(item) if isinstance(item, dict) else item for item in joined]


def _is_same(one: JsonObject, other: JsonObject) -> bool:
    return bool(one.get("index") == other["index"] and one.get("type") == other.get("type", one.get("type")))
