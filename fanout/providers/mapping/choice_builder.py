"""One choice of a streamed answer while it grows, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.extras import merge_extras
from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Choice, FinishReason, TokenLogprob
from fanout.providers.mapping.tool_calls import ToolCallBuilder, list_pieces

MAX_CHOICES = 128
"""Of one call. Source: `n`, https://platform.openai.com/docs/api-reference/chat/create"""


class ChoiceBuilder:
    """One choice of a streamed answer, so far."""

    __slots__ = (
        "_calls",
        "extras",
        "finish_reason",
        "is_finished",
        "logprobs",
        "native",
        "reasoning",
        "refusal",
        "text",
    )

    def __init__(self) -> None:
        # Joined once: adding strings would copy a long answer for each piece.
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.extras: list[JsonObject] = []
        self.is_finished = False
        self.finish_reason: FinishReason | None = None
        self.native: str | None = None
        self._calls: ToolCallBuilder | None = None

    def add_calls(self, message: Mapping[str, Any]) -> tuple[JsonObject, ...]:
        """Add a delta's tool calls; return what is new in them, with the `index` under which they stand here."""
        self._calls = calls = self._calls or ToolCallBuilder()
        return tuple(piece for raw in list_pieces(message) if (piece := calls.add(raw)))

    def end_calls(self) -> tuple[JsonObject, ...]:
        """Return what ended tool calls still lack, see `ToolCallBuilder.end`."""
        return tuple(self._calls.end()) if self._calls else ()

    def finish(self, reason: FinishReason | None, native: str | None) -> None:
        """Note the end of the choice, in our word and in the provider's."""
        self.is_finished, self.finish_reason, self.native = True, reason, native

    def build(self) -> Choice:
        """Return the choice as it is now."""
        self.end_calls()
        calls = self._calls.build() if self._calls else ()
        extra = merge_extras(self.extras) if self.extras else {}
        answer = Answer("".join(self.text), "".join(self.reasoning) or None, "".join(self.refusal) or None, calls, extra)
        return Choice(answer, self.finish_reason, self.native, tuple(self.logprobs) or None)
