"""Fair shares of what is free, between processes that want more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fanout.limits.shared.messages import SliceDemand


class SliceStanding(NamedTuple):
    """One process's part of a quantity: what it holds, and what it wanted at its last ask and did not get."""

    held: int = 0
    interactive: int = 0
    batch: int = 0
    need: int = 1
    since: float | None = None
    """When it began to want more, or last got some."""
    in_window: int = 0

    @property
    def wants(self) -> int:
        """All that it waits for."""
        return self.interactive + self.batch


def compute_level(amount: int, wants: Sequence[int]) -> int:
    """Return how much each may have, so that whoever wants less leaves the rest to the others."""
    left, level = amount, 0
    for place, want in enumerate(sorted(wants)):
        level = left // (len(wants) - place)
        if want > level:
            return level
        left -= want
    return max(level, amount)


def allot(free: int, demand: SliceDemand, since: float, others: Sequence[SliceStanding]) -> int:
    """Return what a process gets of what is free.

    Interactive calls come first, whichever process has them; within a lane, each gets its fair share. Where that is less than
    one call needs, those that have waited longest are served first.
    """
    interactive_elsewhere = sum(other.interactive for other in others)
    wanted_elsewhere = interactive_elsewhere + sum(other.batch for other in others)
    granted = _allot_lane(
        free, demand.interactive, demand.need, since, [(one.interactive, one.need, one.since) for one in others]
    )
    need = 1 if demand.interactive else demand.need
    granted += _allot_lane(
        free - granted - interactive_elsewhere,
        demand.batch,
        need,
        since,
        [(one.batch, 1 if one.interactive else one.need, one.since) for one in others],
    )
    # Ahead of demand nobody gets what somebody waits for.
    return granted + max(min(demand.ahead, free - granted - wanted_elsewhere), 0)


def _allot_lane(free: int, want: int, need: int, since: float, others: Sequence[tuple[int, int, float | None]]) -> int:
    waiting = [other for other in others if other[0] > 0]
    # Who has waited longer gets the next call's worth, or calls that need much would starve beside small ones.
    mine = free - sum(other_need for _, other_need, other_since in waiting if (other_since or since) < since)
    if want <= 0 or mine < need:
        return 0
    level = compute_level(free, [want, *(other_want for other_want, _, _ in waiting)])
    return min(want, mine, max(need, level))
