"""Bodies of `POST /v1/completion` that repeat an earlier one in all but its prompt, as nearly all do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import dump
from fanout.requests.bodies import parse_body, validate_value
from fanout.requests.thiggle import CompletionBody

MAX_KEPT_BODIES = 256
MAX_REST_BYTES = 2048
"""Of a kept body, without its prompt: callers choose what they send."""


class RepeatedBodies:
    """Validated bodies without their prompts, kept for the requests that follow.

    Any text is a valid prompt, and nothing else in a body depends on it.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[object, CompletionBody]] = {}
        """By the rest of a body: the catalogue that it was validated with, and what came of it."""

    def validate(self, raw: bytes | bytearray, context: Mapping[str, Any]) -> tuple[CompletionBody, str]:
        """Validate a body; return it, perhaps without its prompt, and the prompt. For what it raises see `validate_body`.

        The context holds the `catalogue`, which every reload replaces.
        """
        value = parse_body(raw)
        prompt = value.get("prompt") if isinstance(value, dict) else None
        if not isinstance(prompt, str) or len(raw) - len(prompt) > MAX_REST_BYTES:
            body = validate_value(value, CompletionBody, context)
            return body, body.prompt
        rest, catalogue = dump({**value, "prompt": None}), context["catalogue"]
        kept = self._kept.get(rest)
        if kept is not None and kept[0] is catalogue:
            return kept[1], prompt
        body = validate_value({**value, "prompt": ""}, CompletionBody, context)
        # All at once: counting which is oldest would cost every request.
        if len(self._kept) >= MAX_KEPT_BODIES:
            self._kept.clear()
        self._kept[rest] = catalogue, body
        return body, prompt
