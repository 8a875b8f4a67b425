"""Messages of a conversation, and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the part carries: cache_control, …"""


@dataclass(frozen=True, slots=True)
class ImagePart:
    url: str
    """http(s) address or data: URL."""
    detail: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherPart:
    """A part that only some providers know (audio, a file), as the caller wrote it."""

    raw: Mapping[str, Any]


Content = str | tuple[TextPart | ImagePart | OtherPart, ...]


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: Content | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the message carries: name, tool_calls, tool_call_id, …"""
