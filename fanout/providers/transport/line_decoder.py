"""Base of the decoders of streams: bytes in, as they arrive, cut anywhere; whole events out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure

Event = tuple[str | None, bytes]
"""The event's name, if it has one, and its data."""


class LineDecoder(ABC):
    """A decoder that keeps the bytes of the event that has begun, up to a limit.

    Args:
        max_event_bytes: limit of one event, which may be the whole answer.
    """

    __slots__ = ("_max_bytes", "_rest")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_bytes = max_event_bytes
        self._rest = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that has begun."""
        return len(self._rest)

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes.

        Raises:
            ProviderError: an event beyond the limit, after those before it; nothing more can be fed.
        """

    @abstractmethod
    def close(self) -> Iterator[Event]:
        """Yield the last event, if its end was never received."""

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            sentence = f"the provider sent a single stream event of over {self._max_bytes:,} bytes"
            raise ProviderError(Failure("malformed", sentence, code="event_too_large"))
