"""Content of an answer beside its text, in the fields where OpenAI's format and the hosts that extend it have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import JsonObject, dump
from fanout.providers.mapping.json_fields import as_object, as_text

THINKING_BLOCKS = "thinking_blocks"
"""Thoughts with the signatures without which Anthropic's models do not take them back, in Anthropic's form."""
THINKING_TYPES = frozenset({"thinking", "redacted_thinking"})
REASONING_NAMES = ("reasoning_content", "reasoning")
"""Fields of thoughts: the first is of DeepSeek and Z.ai, the other of Groq and OpenRouter."""
READ_APART = frozenset({"role", "content", "refusal", "tool_calls", "function_call", *REASONING_NAMES})
"""Fields of a message that `openai_answers` reads."""
WITHOUT_CONTENT = frozenset({"id", "index", "name", "object", "prefix", "status", "type"})
"""Fields in which some hosts say something about a message."""
NOT_PASSED_ON = READ_APART | WITHOUT_CONTENT
BESIDE_CHOICES = frozenset({"citations", "search_results", "images", "videos", "related_questions", "web_search"})
"""Fields of an answer itself that belong to its message. Source: Perplexity, xAI; `web_search`: Z.ai."""


def pick_extras(message: Mapping[str, Any]) -> JsonObject:
    """Return the content beside the text of a message in OpenAI's format: all of its fields that nothing else reads."""
    extra = {name: value for name, value in message.items() if name not in NOT_PASSED_ON and not _is_blank(value)}
    for name in REASONING_NAMES:
        value = message.get(name)
        if value and type(value) is not str:  # kept as it is, for nobody reads it
            extra[name] = value
    content = get_content(message)
    if type(content) is list:
        for part in content:
            _add_part(extra, part)
    return extra


def get_content(message: Mapping[str, Any]) -> str | list[Any]:
    """Return the content of a message, as text or as parts; some hosts send one part without a list, or a JSON value."""
    content = message.get("content")
    if type(content) is str or type(content) is list:
        return content
    if content is None:
        return ""
    # In a JSON mode some hosts send the value itself; as text it is what the others send.
    is_part = isinstance(content, dict) and ("text" in content or "type" in content)
    return [content] if is_part else dump(content).decode()


def make_image(media_type: str, base64: str) -> JsonObject:
    """Return an item of `images`, as OpenRouter has them."""
    return make_image_link(f"data:{media_type};base64,{base64}")


def make_image_link(url: str) -> JsonObject:
    """Return an item of `images` at an address."""
    return {"type": "image_url", "image_url": {"url": url}}


def list_news(known: object, value: object) -> object:
    """Return the part of a list that is new; some hosts send all of it with every chunk (Perplexity)."""
    # By comparing, not by host: a gateway may stand before either kind.
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
        # Kept as it is: a kind of part that is new today must not vanish from the comparison.
        extra["content_parts"] = [*extra.get("content_parts", ()), part]


def _is_blank(value: object) -> bool:
    """Return whether a value holds nothing: hosts written in Go send every field, empty."""
    # Passed on, an empty `audio` would read as if the model had spoken.
    return not any(value.values()) if isinstance(value, dict) else not value
