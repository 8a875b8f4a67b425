"""Amounts by the time at which they were used, merged so that a log of any rate stays short."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

GRANULES = 240
"""Parts of a window; of a part, all counts as the newest in it does."""


@dataclass(slots=True)
class AmountLog:
    """Amounts in the order of their times."""

    entries: list[tuple[float, int]] = field(default_factory=list)

    def add(self, at: float, amount: int) -> None:
        """Add an amount that was used then."""
        if amount <= 0:
            return
        # Nearly always it is the newest.
        if not self.entries or at >= self.entries[-1][0]:
            self.entries.append((at, amount))
        else:
            insort(self.entries, (at, amount))

    def count_since(self, start: float) -> int:
        """Return what was used after a time."""
        return sum(amount for _, amount in self.entries[self.find_since(start) :])

    def find_since(self, start: float) -> int:
        """Return the place of the first entry after a time."""
        return bisect_right(self.entries, start, key=lambda entry: entry[0])

    def compact(self, now: float, lengths: Sequence[float]) -> None:
        """Forget what is older than the longest window, and merge what no shorter window sees apart."""
        if not lengths:
            self.entries.clear()
            return
        shortest, longest = min(lengths), max(lengths)
        merged: list[tuple[float, int]] = []
        last_cell: tuple[float, int] | None = None
        for at, amount in self.entries[self.find_since(now - longest) :]:
            granule = (shortest if at > now - shortest else longest) / GRANULES
            # Cells of a fixed grid: if each entry were merged with the one before, a whole log could become one entry.
            cell = (granule, int(at // granule))
            if cell == last_cell:
                merged[-1] = (at, merged[-1][1] + amount)
            else:
                merged.append((at, amount))
            last_cell = cell
        self.entries = merged
