"""A streamed answer of any format, read as its bytes come: events in, deltas out, the whole at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from fanout.core.errors import ProviderError
from fanout.core.json_text import parse
from fanout.core.schema import Choice, Completion, Delta, Failure, FinishReason, TokenLogprob
from fanout.providers.mapping.choice_builder import MAX_CHOICES, ChoiceBuilder
from fanout.providers.mapping.failures import Origin, find_error, refusal
from fanout.providers.transport.sse import Event, SseDecoder

UNKNOWN_FINISH = "unknown"
"""Stands in `ChoiceBuilder.finish` where the answer is finished with a word that has no meaning here."""


class StreamReader(ABC):
    """What the readers of all formats have in common; a format says what an event means (`_take`) and sums up (`_whole`)."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        self.ended = False
        self._origin = origin
        self._call_index = call_index
        self._headers = headers
        self._highest_bytes = highest_bytes
        self._decoder = SseDecoder()
        self._choices: dict[int, ChoiceBuilder] = {}
        self._held = 0
        self._error: ProviderError | None = None

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas in `data`. An error behind some of them is raised by what is called next, so that none is lost."""
        deltas: list[Delta] = []
        try:
            self._bytes(data, deltas)
            if self._held > self._highest_bytes:
                raise self._origin.malformed(f"answered with over {self._highest_bytes:,} bytes", "answer_too_large")
        except ProviderError as error:
            self._error, self.ended = self._with_partial(error), True
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
                    self._error = self._with_partial(error)
        return deltas

    def close(self) -> Completion:
        if self._error:
            raise self._error
        unfinished = not self._choices or any(growing.finish is None for growing in self._choices.values())
        if unfinished and not self.ended:
            sentence = f"`{self._origin.name}` ended its stream before the answer was whole"
            raise ProviderError(Failure("network", sentence, code="stream_truncated", partial=self.partial))
        return self._whole(tuple(self._choices[index].choice() for index in sorted(self._choices)))

    @property
    def partial(self) -> str | None:
        """The first choice's text so far."""
        return "".join(self._choices[min(self._choices)].text) or None if self._choices else None

    @abstractmethod
    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        """Reads one event of `size` bytes."""

    @abstractmethod
    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        """The answer, its choices put together."""

    def _bytes(self, data: bytes, deltas: list[Delta]) -> None:
        self._read(self._decoder.feed(data), deltas)

    def _read(self, events: list[Event], deltas: list[Delta]) -> None:
        for name, data in events:
            if data.strip() == b"[DONE]":
                self.ended = True
            elif data:
                try:
                    chunk = parse(data)
                except ValueError:
                    raise self._origin.malformed("sent a chunk that is not JSON", "invalid_json") from None
                if type(chunk) is not dict:
                    self._odd(chunk)
                if name == "error":
                    self._called_error(chunk)
                self._take(chunk, len(data), deltas)
            if self.ended:
                return

    def _called_error(self, chunk: dict[str, Any]) -> NoReturn:
        """A chunk that is an error, or whose event is named one."""
        raise refusal(self._origin, None, self._headers, find_error(chunk))

    def _odd(self, chunk: Any) -> None:
        """A chunk that is JSON but no object."""
        raise self._origin.malformed("sent a chunk that is no answer", "unexpected_shape")

    def _growing(self, index: Any = 0) -> ChoiceBuilder:
        """A choice so far."""
        growing = self._choices.get(index)
        if growing is None:
            if type(index) is not int or not 0 <= index < MAX_CHOICES:
                raise self._origin.malformed("sent a chunk for a choice that was not asked for", "unexpected_shape")
            growing = self._choices[index] = ChoiceBuilder()
        return growing

    def _said(self, index: int, text: str) -> Delta:
        """Text alone: nearly every delta."""
        self._growing(index).text.append(text)
        self._held += len(text)
        return Delta(self._call_index, index, text)

    def _added(
        self,
        index: int,
        size: int,
        *,
        text: str = "",
        reasoning: str = "",
        calls: list[dict[str, Any]] | None = None,
        logprobs: tuple[TokenLogprob, ...] | None = None,
    ) -> Delta | None:
        """What an event of `size` bytes adds to a choice; `None` where that is nothing to see.

        Args:
            calls: pieces of tool calls in OpenAI's shape, each with its `index`.
        """
        growing = self._growing(index)
        if not (text or reasoning or calls or logprobs):
            return None
        delta = Delta(self._call_index, index, text, reasoning or None, logprobs=logprobs or None)
        growing.text.append(text)
        growing.reasoning.append(reasoning)
        if calls:
            delta.tool_calls = growing.add_calls({"tool_calls": calls})
        growing.logprobs.extend(logprobs or ())
        self._held += size if calls or logprobs else len(text) + len(reasoning)
        return delta

    def _finished(self, index: int, finish: FinishReason | None, native: str) -> None:
        growing = self._growing(index)
        growing.finish, growing.native = finish or UNKNOWN_FINISH, native[:100]

    def _with_partial(self, error: ProviderError) -> ProviderError:
        return ProviderError(replace(error.failure, partial=self.partial))
