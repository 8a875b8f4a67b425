"""Parts of conversations that several formats convert: tools, calls of tools, images."""

from __future__ import annotations

import base64
from typing import Any

from fanout.core.messages import Message

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
"""A real image of one pixel."""
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
TOOL_TURNS = (
    Message("user", "Weather in Paris and Rome?"),
    Message(
        "assistant",
        "Looking",
        {
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
            ]
        },
    ),
    Message("tool", '{"sky":"blue"}', {"tool_call_id": "c1"}),
    Message("tool", "grey", {"tool_call_id": "c2"}),
    Message("user", "Thanks"),
)
IMAGE_URL = "data:image/png;base64,iVBORw0KGgo="
"""The first bytes of an image, as a data URL."""
