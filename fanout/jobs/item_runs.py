"""Numbers of a job's items, as runs."""

from __future__ import annotations

from array import array


class ItemRuns:
    """Ascending numbers of items, kept as runs: a million successive ones take as much memory as one."""

    def __init__(self) -> None:
        self._bounds = array("q")  # first, past, first, past, …
        self._head = 0

    def __bool__(self) -> bool:
        return self._head < len(self._bounds)

    def append(self, item: int) -> None:
        if self and self._bounds[-1] == item:
            self._bounds[-1] += 1
        else:
            self._bounds.extend((item, item + 1))

    def peek(self, limit: int) -> list[int]:
        """Return the first numbers, at most `limit`."""
        found: list[int] = []
        for place in range(self._head, len(self._bounds), 2):
            first, past = self._bounds[place], self._bounds[place + 1]
            found.extend(range(first, min(past, first + limit - len(found))))
            if len(found) >= limit:
                break
        return found

    def drop_first(self) -> None:
        """Remove the first number."""
        self._bounds[self._head] += 1
        if self._bounds[self._head] == self._bounds[self._head + 1]:
            self._head += 2
        if not self:
            del self._bounds[:]
            self._head = 0
