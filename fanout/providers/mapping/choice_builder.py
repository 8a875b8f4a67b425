"""One choice of a streamed answer while it grows, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import dump
from fanout.core.schema import Answer, Choice, TokenLogprob
from fanout.providers.mapping.openai_answers import convert_legacy_call, parse_finish_reason

MAX_CHOICES = 128
"""Most choices of one call. Source: `n`, https://platform.openai.com/docs/api-reference/chat/create"""


class ChoiceBuilder:
    """One choice of a streamed answer, so far."""

    __slots__ = ("_arguments", "_calls", "_places", "finish", "logprobs", "native", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: str | None = None
        self.native: str | None = None
        self._calls: list[dict[str, Any]] = []
        self._arguments: list[list[str]] = []
        self._places: dict[Any, int] = {}

    def add_calls(self, message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """Takes a delta's tool calls in; returns them with the `index` under which they stand.

        Gemini's OpenAI path sends whole calls with no index or all with 0: a new id is a new call.
        """
        raw = message.get("tool_calls") or convert_legacy_call(message)
        pieces = [piece for piece in raw if isinstance(piece, dict)] if isinstance(raw, list) else []
        return tuple({**piece, "index": self._add_call(piece)} for piece in pieces)

    def _add_call(self, piece: Mapping[str, Any]) -> int:
        given, name = piece.get("index"), piece.get("id")
        given = given if isinstance(given, int) else 0
        place = self._places.get(given)
        if place is None or (name and self._calls[place].get("id") not in (None, name)):
            place = self._places[given] = len(self._calls)
            self._calls.append({"id": None, "type": "function", "function": {"name": ""}})
            self._arguments.append([])
        call = self._calls[place]
        call.update({key: value for key, value in piece.items() if key not in ("index", "function") and value})
        function = piece.get("function")
        if isinstance(function, dict):
            call["function"]["name"] = call["function"]["name"] or str(function.get("name") or "")
            arguments = function.get("arguments")
            if arguments:
                self._arguments[place].append(arguments if isinstance(arguments, str) else dump(arguments).decode())
        return place

    def choice(self) -> Choice:
        calls = (
            {**call, "function": {**call["function"], "arguments": "".join(pieces)}}
            for call, pieces in zip(self._calls, self._arguments, strict=True)
        )
        answer = Answer("".join(self.text), "".join(self.reasoning) or None, "".join(self.refusal) or None, tuple(calls))
        return Choice(answer, parse_finish_reason(self.finish), self.native, tuple(self.logprobs) or None)
