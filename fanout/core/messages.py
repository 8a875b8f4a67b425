"""Messages of a conversation, and their parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from fanout.core.json_text import JsonObject


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part that is text."""

    text: str
    extra: JsonObject = field(default_factory=dict)
    """Further fields, unchanged: cache_control, …"""


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A part that is an image."""

    url: str
    """Address, http(s) or `data:`."""
    detail: str | None = None
    extra: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherPart:
    """A part that only some providers know (audio, a file), unchanged."""

    raw: JsonObject


Content = str | tuple[TextPart | ImagePart | OtherPart, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    role: str
    content: Content | None
    extra: JsonObject = field(default_factory=dict)
    """Further fields, unchanged: name, tool_calls, tool_call_id, …"""
