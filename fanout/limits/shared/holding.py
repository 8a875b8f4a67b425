"""One process's part of a shared quantity, starts or tokens: the slice that it was granted, and what it has used of it.

Times are of this process's own clock. Where a grant's times have to be put on it, the later or the earlier moment is taken,
whichever lets fewer calls start: a slice ends by the time at which its ask was sent, and begins when the grant has arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from fanout.limits.arrivals import MARGIN_S
from fanout.limits.shared.amount_log import AmountLog
from fanout.limits.shared.messages import Part, SliceClaim, SliceDemand, UsedAmounts
from fanout.limits.shared.rules import ALONE_S, ASKING_S, Window

REPORT_CELLS = 4800
"""Of the longest window: 12 ms of a minute."""
AHEAD_RATIO = 1.5
"""How much more is kept ready than was used since the last ask."""


class Holding:
    """A process's part of one quantity."""

    def __init__(self) -> None:
        self.available = 0
        """That may be used now, until the slice ends."""
        self.ends_at = -math.inf
        self.open = 0
        """Reserved for calls whose use is not to be reported yet."""
        self._coming: deque[tuple[float, int]] = deque()
        """That may be used from a time on."""
        self._expected: list[tuple[float, int]] = []
        self._reports: list[tuple[int, list[tuple[float, int]]]] = []
        self._used: list[tuple[float, int]] = []
        """Not in any report yet; uses of nearly the same time are one, at that of the last."""
        self._used_cell = -1
        self._used_since_ask = 0
        self.log = AmountLog()
        """Its own use in the last period."""
        self.windows: Sequence[Window] = ()
        """That the use is kept within when the store is away: the limits over all processes."""
        self._alone: _Alone | None = None
        self._alone_until = -math.inf
        self._is_asking = False
        self.spare = 0
        """That may be kept ready beside what was used, as of the last grant; 0 for a process without calls."""

    @property
    def span_s(self) -> float:
        """The longest time for which a use counts."""
        return max((window.length_s for window in self.windows), default=0.0)

    def compute_wait_s(self, now: float, amount: int, retry_s: float) -> float:
        """Return the wait until so much may be used if no other process uses any; at least `retry_s` where that is unknown."""
        self._turn(now)
        if self.available >= amount:
            return 0.0
        missing = amount - self.available
        for at, part in self._coming:
            missing -= part
            if missing <= 0:
                return at - now + MARGIN_S
        # As the row stood at the last ask; what others use meanwhile makes the wait longer.
        for at, free in self._expected:
            if free >= missing:
                return max(at - now + MARGIN_S, retry_s)
        if not self._expected or not self.windows:
            return retry_s
        # Past one period the log repeats itself.
        periods = -(-missing // max(self._expected[-1][1], 1)) - 1
        return max(self._expected[0][0] - now + periods * self.span_s, retry_s)

    def reserve(self, amount: int) -> None:
        """Take an amount of the slice for a call."""
        self.available -= amount
        self.open += amount
        self._used_since_ask += amount

    def give_back(self, amount: int) -> None:
        """Return what was reserved for a call that was never made."""
        self.open -= amount
        self.available += amount
        self._used_since_ask -= amount

    def count(self, at: float, amount: int) -> None:
        """Count an amount in this process's own window."""
        self.log.add(at, amount)

    def report(self, at: float, reserved: int, used: int) -> None:
        """Have it reported that of what was reserved so much was used, at that time."""
        self.open -= reserved
        if used <= 0:
            return
        # Hundreds a second would be written and read one by one. Of a fixed grid, or a whole report could become one use.
        cell = int(at / self.span_s * REPORT_CELLS) if self.windows else 0
        if self._used and cell == self._used_cell:
            last, amount = self._used[-1]
            self._used[-1] = (max(last, at), amount + used)
        else:
            self._used.append((at, used))
            self._used_cell = cell

    def is_stalled(self, need: int) -> bool:
        """Return whether calls that wait wait for something else."""
        return self.available >= need

    def build_claim(self, number: int, now: float, wanted: SliceDemand) -> SliceClaim:
        """Return what to ask for."""
        self._turn(now)
        # From now on, what this ask says is all that there is; an ask that finds the store again is believed.
        self._is_asking, self._alone_until = True, now + ASKING_S
        self.log.compact(now, [window.length_s for window in self.windows])
        recent = math.ceil(AHEAD_RATIO * max(self._used_since_ask, 0))
        self._used_since_ask = 0
        is_waiting = wanted.interactive or wanted.batch
        if is_waiting and not self.is_stalled(wanted.need):
            # Too little for the first call that waits: another process's may need less.
            if wanted.need > 1:
                self.available = min(self.available, 0)
            # No more ahead: that would be taken from calls of other processes that wait as well.
            demand = wanted._replace(ahead=0)
            demand = _lessen(demand, self.available + sum(part for _, part in self._coming))
        else:
            # What calls would have used by now, had they not to wait for something else, goes back.
            keep = max(recent + (wanted.need if is_waiting else 0), self.spare)
            self.available = min(self.available, keep)
            if self.available + sum(part for _, part in self._coming) > keep:
                self._coming.clear()
            demand = SliceDemand(ahead=max(keep - self.available - sum(part for _, part in self._coming), 0))
        if self._used:
            self._reports.append((number, self._used))
            self._used = []
        # Of an ask that failed it is not known whether it arrived: its uses are told again, under its number.
        oldest = now - self.span_s
        reports = [UsedAmounts(sent, [(now - at, used) for at, used in parts if at > oldest]) for sent, parts in self._reports]
        held = self.open + max(self.available, 0) + sum(part for _, part in self._coming)
        return SliceClaim(held, demand, reports, self.log.count_since(oldest) + self.open)

    def accept(self, parts: Sequence[Part], expected: Sequence[Part], received_at: float, ends_at: float) -> None:
        """Take a grant, which renews what is left of the ones before; all that was reported has arrived."""
        self._alone, self._is_asking = None, False
        self._reports.clear()
        # The slice before has ended while the ask was on its way: what was left of it went back with the next report.
        if received_at >= self.ends_at > -math.inf:
            self.drop()
        self.ends_at = ends_at
        for delay_s, amount in parts:
            if delay_s <= 0:
                self.available += amount
            else:
                self._coming.append((received_at + delay_s, amount))
        self._coming = deque(sorted(self._coming))
        self._expected = [(received_at + delay_s, amount) for delay_s, amount in expected]

    def drop(self) -> None:
        """Let go of what was not used."""
        self.available = min(self.available, 0)
        self._coming.clear()

    def fail(self, now: float) -> None:
        """Note that an ask has failed."""
        self._is_asking, self._alone_until = False, now + ALONE_S

    def go_alone(self, lost_at: float, since: float, members: int, *, is_known: bool) -> None:
        """Go on without the store; see `_Alone`."""
        # Of a limit below the number of processes nobody has a share: any of them could exceed it.
        shares = [Window(window.limit // members if is_known else 0, window.length_s) for window in self.windows]
        own = [self.log.count_since(lost_at - window.length_s) + self.open + max(self.available, 0) for window in self.windows]
        self._alone = _Alone(since, shares, own)

    @property
    def has_news(self) -> bool:
        """It holds a slice, or has used something that the others do not know of."""
        return self.available > 0 or bool(self._coming or self._used or self._reports)

    def _turn(self, now: float) -> None:
        """Take what may be used by now, and drop what may not be any more."""
        if now >= self.ends_at:
            if self._alone is None or now >= self._alone_until:
                self.drop()
            elif not self._is_asking:
                self._coming.clear()
                self.available = self._alone.compute_free(now, self.log) - self.open
            return
        while self._coming and self._coming[0][0] <= now:
            self.available += self._coming.popleft()[1]


class _Alone:
    """The rule by which a process goes on without the store.

    At first it may replace its own use of the last period as that leaves the window, which nobody else can use. Once so long
    has passed that what each has used beyond its share has left the window, each may use its share of the limit. A share is
    the limit divided by the processes that lived when the store was last there.
    """

    def __init__(self, since: float, shares: Sequence[Window], own: Sequence[int]) -> None:
        self._since, self._shares, self._own = since, shares, own

    def compute_free(self, now: float, log: AmountLog) -> int:
        """Return what may be used now, calls under way included."""
        free = math.inf
        for (share, length_s), own in zip(self._shares, self._own, strict=True):
            allowed = min(share, own) if now < self._since + length_s else share
            free = min(free, allowed - log.count_since(now - length_s))
        return int(max(free, 0)) if free < math.inf else 0


def _lessen(demand: SliceDemand, amount: int) -> SliceDemand:
    """Return a demand without what is there for it already."""
    taken = min(demand.interactive, max(amount, 0))
    return demand._replace(interactive=demand.interactive - taken, batch=max(demand.batch - max(amount - taken, 0), 0))
