"""A streamed answer in OpenAI's shape: chunks in, deltas out, the whole at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.schema import Choice, Completion, Delta
from fanout.providers.mapping.choice_builder import ChoiceBuilder
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.openai_answers import (
    build_completion,
    check_choice,
    native_finish_reason,
    parse_logprobs,
    parse_texts,
    parse_usage,
    pick_extras,
)
from fanout.providers.mapping.stream_reader import UNKNOWN_FINISH, StreamReader


class OpenAiEvents(StreamReader):
    """A streamed answer. Takes any chunk that has a meaning."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._head: dict[str, Any] = {}
        self._usage: Any = None

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        if chunk.get("error") or chunk.get("object") == "error":  # `is_error`, without its call: every chunk passes here
            self._called_error(chunk)
        if not self._head.get("model"):
            self._head = chunk
        choices = chunk.get("choices")
        if choices and isinstance(choices, list):
            for place, choice in enumerate(choices):
                if isinstance(choice, dict) and (delta := self._delta(choice, place, size)):
                    deltas.append(delta)
        if usage := chunk.get("usage"):
            self._usage = usage

    def _delta(self, choice: dict[str, Any], place: int, size: int) -> Delta | None:
        """What a choice of a chunk adds; `None` where it adds nothing to see (a role, a finish reason)."""
        index = choice.get("index")
        if type(index) is not int:
            index = place
        growing = self._choices.get(index) or self._growing(index)
        message = choice.get("delta")
        text = message.get("content") if type(message) is dict else choice.get("text")
        logprobs = choice.get("logprobs")
        if choice.get("finish_reason") or choice.get("error"):
            self._end(growing, choice)
        if type(text) is str and not logprobs and (type(message) is not dict or len(message) == 1):
            if not text:
                return None
            growing.text.append(text)
            self._held += len(text)
            return Delta(self._call_index, index, text)
        return self._rich_delta(growing, index, message if isinstance(message, dict) else {"content": text}, logprobs, size)

    def _rich_delta(
        self, growing: ChoiceBuilder, index: int, message: dict[str, Any], logprobs: Any, size: int
    ) -> Delta | None:
        text, reasoning = parse_texts(message)
        refused = message.get("refusal")
        delta = Delta(self._call_index, index, text, reasoning, refused if refused and isinstance(refused, str) else None)
        if message.get("tool_calls") or message.get("function_call"):
            delta.tool_calls = growing.add_calls(message)
        if logprobs:
            delta.logprobs = parse_logprobs(logprobs) or None
        delta.extra = pick_extras(message) or None
        growing.text.append(text)
        growing.reasoning.append(delta.reasoning or "")
        growing.refusal.append(delta.refusal or "")
        growing.logprobs.extend(delta.logprobs or ())
        self._held += (
            size
            if delta.tool_calls or delta.logprobs or delta.extra
            else len(text) + len(reasoning or "") + len(delta.refusal or "")
        )
        seen = text or reasoning or delta.refusal or delta.tool_calls or delta.logprobs or delta.extra
        return delta if seen else None

    def _end(self, growing: ChoiceBuilder, choice: Mapping[str, Any]) -> None:
        check_choice(self._origin, self._headers, choice)
        word = choice.get("finish_reason")
        growing.finish = word if isinstance(word, str) else UNKNOWN_FINISH
        growing.native = native_finish_reason(choice, word)

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, self._head, choices, parse_usage(self._usage))
