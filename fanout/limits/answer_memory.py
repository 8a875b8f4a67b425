"""Memory for answers: all that running requests hold of them together has a bound.

An answer counts from its first bytes until its request is over. One that finds no room waits, which slows its upstream down,
until another one ends; see `SharedRoom`. Only large answers wait so: a quarter of the memory is for the beginnings of answers.
"""

from __future__ import annotations

from itertools import count
from types import TracebackType
from typing import Self

from fanout.core.answer_size import measure_answer
from fanout.core.errors import ProviderError
from fanout.core.schema import NO_MEMORY_CODE, Call, Completion, Failure, RequestScope
from fanout.limits.shared_room import NoRoomError, Share, SharedRoom

BEGINNING_BYTES = 64 * 1024
"""Of an answer: more than nearly all of them have."""
STEP_BYTES = 4096
"""Taken at once for a beginning; of what follows it, `BEGINNING_BYTES`."""
NO_ROOM = Failure(
    "internal",
    "Fanout holds as many bytes of answers as FANOUT_MAX_HELD_BYTES allows",
    code=NO_MEMORY_CODE,
    retry_after_s=1.0,
    should_retry=True,
)


class AnswerMemory:
    """The bytes of answers that a process may hold."""

    def __init__(self, limit: int) -> None:
        # Apart from the rest: else a few endless answers would take the room in which all others begin.
        self.beginnings = SharedRoom(limit // 4)
        self.rest = SharedRoom(limit - limit // 4)
        self._scopes = count(1)

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self.beginnings.used + self.rest.used

    def open_scope(self, configuration: object | None = None) -> AnswerScope:
        """Return the scope of a request that is planned under a configuration."""
        return AnswerScope(self, next(self._scopes), configuration)


class AnswerScope(RequestScope):
    """A request and the memory of its answers, which is given back when it is closed, or forgotten."""

    __slots__ = ("_answers", "_memory", "_number", "_wholes")

    def __init__(self, memory: AnswerMemory, number: int, configuration: object | None = None) -> None:
        super().__init__(configuration)
        self._memory, self._number = memory, number
        self._answers: dict[int, HeldAnswer] = {}
        self._wholes: dict[int, int] = {}
        """Bytes of answers that came at once: nearly all do, and need no more than this number (2026-11-28)."""

    # A handler that was cancelled before it closed its scope would otherwise keep these bytes until the process ends.
    def __del__(self) -> None:
        self.close()

    def open_answer(self, index: int) -> HeldAnswer:
        """Begin an answer; that of an earlier attempt at the same call is given back."""
        # A retry begins anew; the bytes of the failed attempt would count twice.
        self.release_answer(index)
        answer = self._answers[index] = HeldAnswer(self._memory, self._number)
        return answer

    def hold_whole(self, index: int, size: int) -> bool:
        if index in self._answers or index in self._wholes:
            self.release_answer(index)
        if size > BEGINNING_BYTES or not self._memory.beginnings.take_whole(size):
            return False
        self._wholes[index] = size
        return True

    def holds(self, index: int) -> bool:
        """Return whether the answer to a call counts."""
        return index in self._wholes or index in self._answers

    def release_answer(self, index: int) -> None:
        if index in self._wholes:
            self._memory.beginnings.give_back(self._wholes.pop(index))
        elif answer := self._answers.pop(index, None):
            answer.release()

    def close(self) -> None:
        """Give back the memory of all answers."""
        if self._wholes:
            self._memory.beginnings.give_back(sum(self._wholes.values()))
            self._wholes.clear()
        while self._answers:
            self._answers.popitem()[1].release()


class HeldAnswer:
    """The memory of one answer. As a context, it is given back if the answer fails, and grows no more after it."""

    __slots__ = ("_beginning", "_is_released", "_memory", "_rest")

    def __init__(self, memory: AnswerMemory, scope: int) -> None:
        self._memory = memory
        self._beginning, self._rest = Share(scope), Share(scope)
        self._is_released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.release()
        elif self._beginning.is_growing or self._rest.is_growing:  # else its end was noted when its last byte came
            self.end(self.size)

    @property
    def size(self) -> int:
        """Bytes that the answer may have without growing."""
        return self._beginning.units + self._rest.units

    def grow_now(self, size: int) -> bool:
        """Take the room of a short answer if it is free; return whether it was: nearly every answer is one, and waits never."""
        beginning = _round_up(size, STEP_BYTES) - self._beginning.units
        if size > BEGINNING_BYTES:
            return False
        return beginning <= 0 or self._memory.beginnings.take_now(self._beginning, beginning, beginning)

    async def grow(self, size: int, most: int = 0) -> None:
        """Wait for room.

        Args:
            size: bytes of the answer.
            most: those that it may come to; by default no more.

        Raises:
            ProviderError: there is none.
        """
        try:
            wanted = min(_round_up(size, STEP_BYTES), BEGINNING_BYTES) - self._beginning.units
            if wanted > 0:
                await self._memory.beginnings.take(self._beginning, wanted, min(most, BEGINNING_BYTES) - self._beginning.units)
            wanted = _round_up(size - BEGINNING_BYTES, BEGINNING_BYTES) - self._rest.units
            if wanted > 0:
                await self._memory.rest.take(self._rest, wanted, most - BEGINNING_BYTES - self._rest.units)
        except NoRoomError:
            raise ProviderError(NO_ROOM) from None
        finally:
            if self._is_released:  # while it waited
                self.release()

    def end(self, size: int) -> None:
        """Note that the answer has come to its end with so many bytes, and give back what it has beyond them."""
        self._memory.beginnings.end(self._beginning, size)
        if self._rest.is_used:  # nearly no answer is longer than its beginning
            self._memory.rest.end(self._rest, max(size - BEGINNING_BYTES, 0))

    def release(self) -> None:
        """Give the memory back."""
        # Set first: an answer that waits in `grow` at this moment must give back what it gets afterwards.
        self._is_released = True
        self.end(0)


UNBOUNDED = AnswerMemory(2**62)
"""For calls that no dispatcher has planned."""


def open_answer(call: Call) -> HeldAnswer:
    """Begin the answer to a call."""
    scope = call.scope
    return scope.open_answer(call.index) if isinstance(scope, AnswerScope) else HeldAnswer(UNBOUNDED, 0)


def is_counted(call: Call) -> bool:
    """Return whether the answer to a call has been counted while it came, or its call has no scope to count in."""
    return not isinstance(call.scope, AnswerScope) or call.scope.holds(call.index)


async def count_answer(call: Call, completion: Completion) -> None:
    """Count an answer whose adapter has not counted it while it came.

    Raises:
        ProviderError: there is no room for it.
    """
    if isinstance(call.scope, AnswerScope):
        size = measure_answer(completion)
        with call.scope.open_answer(call.index) as held:
            await held.grow(size)
            held.end(size)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
