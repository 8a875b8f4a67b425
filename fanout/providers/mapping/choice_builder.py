"""One choice of a streamed answer while it grows, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import JsonObject, dump
from fanout.core.schema import Answer, Choice, FinishReason, TokenLogprob
from fanout.providers.mapping.json_fields import as_object, as_objects

MAX_CHOICES = 128
"""Of one call. Source: `n`, https://platform.openai.com/docs/api-reference/chat/create"""


class ChoiceBuilder:
    """One choice of a streamed answer, so far."""

    __slots__ = (
        "_arguments",
        "_calls",
        "_places",
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
        self.is_finished = False
        self.finish_reason: FinishReason | None = None
        self.native: str | None = None
        self._calls: list[JsonObject] = []
        self._arguments: list[list[str]] = []
        self._places: dict[int, int] = {}

    def add_calls(self, message: Mapping[str, Any]) -> tuple[JsonObject, ...]:
        """Add a delta's tool calls; return them with the `index` under which they stand here.

        Gemini's OpenAI path sends whole calls with no index, or all with 0: a new id is a new call.
        """
        pieces = as_objects(message.get("tool_calls") or convert_legacy_call(message))
        return tuple({**piece, "index": self._add_call(piece)} for piece in pieces)

    def finish(self, reason: FinishReason | None, native: str | None) -> None:
        """Note the end of the choice, in our word and in the provider's."""
        self.is_finished, self.finish_reason, self.native = True, reason, native

    def build(self) -> Choice:
        """Return the choice as it is now."""
        calls = (
            {**call, "function": {**call["function"], "arguments": "".join(pieces)}}
            for call, pieces in zip(self._calls, self._arguments, strict=True)
        )
        answer = Answer("".join(self.text), "".join(self.reasoning) or None, "".join(self.refusal) or None, tuple(calls))
        return Choice(answer, self.finish_reason, self.native, tuple(self.logprobs) or None)

    def _add_call(self, piece: JsonObject) -> int:
        index, call_id = piece.get("index"), piece.get("id")
        index = index if isinstance(index, int) else 0
        place = self._places.get(index)
        # A new id under a known index is a new call, not a further piece of the old one.
        if place is None or (call_id and self._calls[place].get("id") not in (None, call_id)):
            place = self._places[index] = len(self._calls)
            self._calls.append({"id": None, "type": "function", "function": {"name": ""}})
            self._arguments.append([])
        call, function = self._calls[place], as_object(piece.get("function"))
        # Later pieces repeat fields as empty: those must not erase the first ones.
        call.update({key: value for key, value in piece.items() if key not in ("index", "function") and value})
        call["function"]["name"] = call["function"]["name"] or str(function.get("name") or "")
        if arguments := function.get("arguments"):
            self._arguments[place].append(arguments if isinstance(arguments, str) else dump(arguments).decode())
        return place


def convert_legacy_call(message: Mapping[str, Any]) -> list[JsonObject]:
    """Return `function_call`, which `tool_calls` replaced, as one of those."""
    call = message.get("function_call")
    return [{"type": "function", "function": call}] if isinstance(call, dict) else []
