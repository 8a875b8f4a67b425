"""A streamed answer in OpenAI's shape: chunks in, deltas out, the whole at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fanout.errors import ProviderError
from fanout.providers._choices import (
    check,
    completion,
    extra_of,
    finish_of,
    legacy_call,
    logprobs_of,
    native_finish,
    said,
    usage_of,
)
from fanout.providers._failures import Source, error_in, is_error, refusal
from fanout.providers._json import dump, parse
from fanout.providers._sse import Event, SseDecoder
from fanout.schema import Answer, Choice, Completion, Delta, Failure, TokenLogprob

HIGHEST_INDEX = 128
"""Most choices of one call. Source: `n`, https://platform.openai.com/docs/api-reference/chat/create"""


class Growing:
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
        raw = message.get("tool_calls") or legacy_call(message)
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
        return Choice(answer, finish_of(self.finish), self.native, tuple(self.logprobs) or None)


class OpenAiEvents:
    """A streamed answer: chunks in, deltas out, the whole at the end. Takes any chunk that has a meaning."""

    def __init__(self, source: Source, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        self.ended = False
        self._source = source
        self._call_index = call_index
        self._headers = headers
        self._highest_bytes = highest_bytes
        self._decoder = SseDecoder()
        self._choices: dict[int, Growing] = {}
        self._head: dict[str, Any] = {}
        self._usage: Any = None
        self._held = 0
        self._error: ProviderError | None = None

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas in `data`. An error behind some of them is raised by what is called next, so that none is lost."""
        deltas: list[Delta] = []
        try:
            self._read(self._decoder.feed(data), deltas)
            if self._held > self._highest_bytes:
                raise self._source.malformed(f"answered with over {self._highest_bytes:,} bytes", "answer_too_large")
        except ProviderError as error:
            self._error, self.ended = ProviderError(replace(error.failure, partial=self.partial)), True
            if not deltas:
                raise self._error from None
        return deltas

    def finish(self) -> list[Delta]:
        if self._error:
            raise self._error
        deltas: list[Delta] = []
        if not self.ended:
            try:
                self._read(self._decoder.close(), deltas)
            except ProviderError as error:
                # Half an event is what a stream that was cut ends with; `close` says so.
                if error.failure.code not in ("invalid_json", "unexpected_shape"):
                    self._error = ProviderError(replace(error.failure, partial=self.partial))
        return deltas

    def close(self) -> Completion:
        if self._error:
            raise self._error
        unfinished = not self._choices or any(growing.finish is None for growing in self._choices.values())
        if unfinished and not self.ended:
            sentence = f"`{self._source.name}` ended its stream before the answer was whole"
            raise ProviderError(Failure("network", sentence, code="stream_truncated", partial=self.partial))
        choices = tuple(self._choices[index].choice() for index in sorted(self._choices))
        return completion(self._source, self._headers, self._head, choices, usage_of(self._usage))

    @property
    def partial(self) -> str | None:
        """The first choice's text so far."""
        return "".join(self._choices[min(self._choices)].text) or None if self._choices else None

    def _read(self, events: list[Event], deltas: list[Delta]) -> None:
        for name, data in events:
            if data == b"[DONE]" or data.strip() == b"[DONE]":
                self.ended = True
                return
            if not data:
                continue
            try:
                chunk = parse(data)
            except ValueError:
                raise self._source.malformed("sent a chunk that is not JSON", "invalid_json") from None
            if not isinstance(chunk, dict):
                raise self._source.malformed("sent a chunk that is no answer", "unexpected_shape")
            if name == "error" or is_error(chunk):
                raise refusal(self._source, None, self._headers, error_in(chunk))
            self._chunk(chunk, len(data), deltas)

    def _chunk(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
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
        growing = self._choices.get(index) or self._begun(index)
        message = choice.get("delta")
        text = message.get("content") if type(message) is dict else choice.get("text")
        logprobs = choice.get("logprobs")
        if choice.get("finish_reason") or choice.get("error"):
            self._finished(growing, choice)
        if type(text) is str and not logprobs and (type(message) is not dict or len(message) == 1):
            if not text:
                return None
            growing.text.append(text)
            self._held += len(text)
            return Delta(self._call_index, index, text)
        return self._rich_delta(growing, index, message if isinstance(message, dict) else {"content": text}, logprobs, size)

    def _rich_delta(self, growing: Growing, index: int, message: dict[str, Any], logprobs: Any, size: int) -> Delta | None:
        text, reasoning = said(message)
        refused = message.get("refusal")
        delta = Delta(self._call_index, index, text, reasoning, refused if refused and isinstance(refused, str) else None)
        if message.get("tool_calls") or message.get("function_call"):
            delta.tool_calls = growing.add_calls(message)
        if logprobs:
            delta.logprobs = logprobs_of(logprobs) or None
        delta.extra = extra_of(message) or None
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

    def _begun(self, index: int) -> Growing:
        if not 0 <= index < HIGHEST_INDEX:
            raise self._source.malformed("sent a chunk for a choice that was not asked for", "unexpected_shape")
        growing = self._choices[index] = Growing()
        return growing

    def _finished(self, growing: Growing, choice: Mapping[str, Any]) -> None:
        check(self._source, self._headers, choice)
        word = choice.get("finish_reason")
        growing.finish = word if isinstance(word, str) else "unknown"
        growing.native = native_finish(choice, word)
