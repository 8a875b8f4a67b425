"""Answers of any format: whole, or streamed and read as their bytes come, events in, deltas out, the whole at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject, parse
from fanout.core.json_values import has_more_values
from fanout.core.schema import Choice, Completion, Delta, Failure
from fanout.providers.mapping.error_objects import find_error, parse_error_body
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.growing_answer import GrowingAnswer
from fanout.providers.transport.line_decoder import Event, LineDecoder
from fanout.providers.transport.sse import BOM, SseDecoder

PIECE_BYTES = 64
"""Memory of a piece beside its text: an object and its places in lists."""
MAX_ENVELOPE_BYTES = 4096
"""Of what stands around a piece of an answer: ids, usage so far, comments. More than that for each piece counts as answer."""
MAX_ANSWER_VALUES = 1_500_000
"""Texts, numbers, objects and lists in one answer: log probabilities of 16 MiB have as many, which take some 300 MiB."""


def parse_within_bounds(data: bytes | bytearray, origin: Origin) -> Any:
    """Return the value of an answer's JSON.

    Raises:
        ProviderError: it holds more than `MAX_ANSWER_VALUES`.
        ValueError: see `parse`.
    """
    if len(data) > MAX_ANSWER_VALUES and has_more_values(data, MAX_ANSWER_VALUES):
        raise origin.answer_error(f"answered with over {MAX_ANSWER_VALUES:,} values", "answer_too_large")
    return parse(data)


class AnswerReader(GrowingAnswer, ABC):
    """One streamed answer; its class also parses whole ones. Each format has a subclass. Pure: sockets are elsewhere.

    Args:
        origin: of the answer.
        call_index: the place of the call's first answer.
        max_bytes: of text, reasoning and tool calls that are held; of one event; of comments and of chunks that say nothing.
    """

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index)
        self.is_ended = False
        """Further bytes are of no interest: the answer has ended, or failed."""
        self._max_bytes = max_bytes
        self._decoder: LineDecoder = SseDecoder(max_bytes + MAX_ENVELOPE_BYTES)
        self._pieces = 0
        self._idle_bytes = 0
        """Received beyond what the pieces account for."""
        self._error: ProviderError | None = None

    @staticmethod
    def is_stream(head: bytes) -> bool | None:
        """Return whether an answer that begins with `head` is a stream of this format; `None`: more of it must be seen.

        No header decides that: hosts name any type for either, or none.
        """
        first = head.removeprefix(BOM).lstrip()[:1]
        return first not in (b"{", b"[", b"<") if first else None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that has begun: the next ones may end it, and parsing it takes time."""
        return self._decoder.pending_bytes

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the answer takes so far."""
        return self._held_bytes + self.pending_bytes + PIECE_BYTES * self._pieces

    def feed(self, data: bytes) -> list[Delta]:
        """Return the deltas in `data`. An error behind some of them is raised by the next method called, so that none is lost.

        Raises:
            ProviderError: the answer failed, or makes no sense; the failure carries the text so far.
        """
        deltas: list[Delta] = []
        self._deltas = deltas
        try:
            self._read_bytes(data)
            self._pieces += len(deltas)
            self._idle_bytes += len(data) - MAX_ENVELOPE_BYTES * len(deltas)
            # A stream without an end must not fill the memory, nor one without content keep us reading.
            if self._held_bytes > self._max_bytes or self._idle_bytes > self._max_bytes:
                raise self._origin.answer_error(f"answered with over {self._max_bytes:,} bytes", "answer_too_large")
        except ProviderError as error:
            # Deltas before the error are the caller's: it is raised at the next step.
            self._error, self.is_ended = self._with_partial(error), True
            if not deltas:
                raise self._error from None
        return deltas

    def flush(self) -> list[Delta]:
        """Return what the last event holds, where nothing has ended it; the stream is over.

        Raises:
            ProviderError: as for `feed`.
        """
        if self._error:
            raise self._error
        deltas: list[Delta] = []
        self._deltas = deltas
        if not self.is_ended:
            try:
                self._read_events(self._decoder.close())
            except ProviderError as error:
                # A stream that was cut may end with half an event; `close` reports the cut.
                if error.failure.code not in ("invalid_json", "unexpected_shape"):
                    self._error = self._with_partial(error)
        if self._is_whole and self._error is None:
            self._end_calls()
        return deltas

    def read_values(self, values: Iterable[object]) -> Completion:
        """Return the answer of events that came without a stream, as JSON alone.

        Raises:
            ProviderError: as for `feed`.
        """
        try:
            for value in values:
                if type(value) is not dict:
                    raise self._reject(value)
                self._read_event(value, 0)
                if self.is_ended:
                    break
        except ProviderError as error:
            raise self._with_partial(error) from None
        return self.close(is_cut=False)

    def close(self, *, is_cut: bool = True) -> Completion:
        """Return the whole answer.

        Args:
            is_cut: the bytes may have ended before the answer did: a connection broke, or nothing shows that it did not.

        Raises:
            ProviderError: as for `feed`, or there is no end of the answer.
        """
        if self._error:
            raise self._error
        if not self._is_whole:
            message = f"`{self._origin.name}` ended its stream before the answer was whole"
            if is_cut:
                raise ProviderError(Failure("network", message, code="stream_truncated", partial=self.partial))
            # Read to its end, and perhaps paid for: asking again would pay for it again.
            raise self._with_partial(self._origin.answer_error("sent an answer without an end", "answer_unfinished"))
        return self._complete(tuple(self._choices[index].build() for index in sorted(self._choices)))

    @property
    def _is_whole(self) -> bool:
        # A host may never send `[DONE]`; a finish reason for every choice will do.
        return self.is_ended or (bool(self._choices) and all(choice.is_finished for choice in self._choices.values()))

    @staticmethod
    @abstractmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        """Return the answer of a whole body.

        Raises:
            ProviderError: it is an error, or no answer.
        """

    @staticmethod
    def parse_error(origin: Origin, body: JsonObject) -> ProviderError:
        """Return the failure that the body of an error means, or an event that is one."""
        return origin.upstream_error(find_error(body))

    @abstractmethod
    def _read_event(self, event: JsonObject, size: int) -> None:
        """Read one event of `size` bytes.

        Raises:
            ProviderError: it is an error, or makes no sense.
        """

    @abstractmethod
    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        """Return the answer that these choices are."""

    def _read_bytes(self, data: bytes) -> None:
        self._read_events(self._decoder.feed(data))

    def _read_events(self, events: Iterable[Event]) -> None:
        for name, data in events:
            if name == "error":  # may be no JSON at all
                raise self.parse_error(self._origin, parse_error_body(data))
            if data.strip() == b"[DONE]":
                self.is_ended = True
            elif data:
                try:
                    event = parse_within_bounds(data, self._origin)
                except ValueError:
                    raise self._origin.answer_error("sent a chunk that is not JSON", "invalid_json") from None
                if type(event) is not dict:
                    raise self._reject(event)
                self._read_event(event, len(data))
            if self.is_ended:
                return

    def _reject(self, value: object) -> ProviderError:
        """Return the failure that a chunk means which is JSON but no object."""
        return self._origin.answer_error("sent a chunk that is no answer", "unexpected_shape")

    def _with_partial(self, error: ProviderError) -> ProviderError:
        return ProviderError(replace(error.failure, partial=self.partial))
