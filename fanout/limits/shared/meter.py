"""The use of one quantity by all processes, and how much of it is free, now and soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fanout.limits.shared.amount_log import AmountLog
from fanout.limits.shared.messages import UsedAmounts
from fanout.limits.shared.rules import Window

BUCKET_STEPS = 8


class Room(NamedTuple):
    """An amount that is free from a time on."""

    at: float
    amount: int


class MeterRules(NamedTuple):
    """The limits on one quantity."""

    windows: Sequence[Window] = ()
    bucket: Window | None = None
    """Its limit comes back evenly over its length."""
    ramp: Window | None = None
    """The least that may start in a period, and its length."""

    @property
    def span_s(self) -> float:
        """The longest time for which a use counts."""
        return max(*(window.length_s for window in (*self.windows, self.bucket, self.ramp) if window), 0.0, 0.0)

    @property
    def is_limited(self) -> bool:
        """Something is limited."""
        return bool(self.windows or self.bucket or self.ramp)


@dataclass(slots=True)
class Meter:
    """The uses of one quantity, in times of the database's clock."""

    log: AmountLog = field(default_factory=AmountLog)
    owed: float = 0.0
    """Of a bucket: taken, and not come back yet."""
    owed_at: float = 0.0
    allowed: int = 0
    """Of a ramp: starts in the current period."""
    started: int = 0
    ends_at: float | None = None

    def use(self, rules: MeterRules, now: float, at: float, amount: int) -> None:
        """Count an amount that was used at a time."""
        if rules.windows:
            self.log.add(at, amount)
        if rules.bucket:
            self._refill(rules.bucket, now)
            self.owed += amount
        if rules.ramp:
            self._turn(rules.ramp, now)
            self.started += amount
            if self.ends_at is None:
                self.ends_at = now + rules.ramp.length_s

    def read(self, rules: MeterRules, now: float, reports: Sequence[UsedAmounts], last_number: int) -> None:
        """Count what a process reports, but for what it has reported before without hearing that it had arrived."""
        for number, used in reports:
            for age_s, amount in used if number > last_number else ():
                self.use(rules, now, now - age_s, amount)

    def list_rooms(self, rules: MeterRules, held: int, now: float) -> list[Room]:
        """Return what is free: now, and whenever that will have grown if nothing more is used."""
        # By limit: what is free of it, and how much comes back when.
        free: list[int] = []
        events: list[tuple[float, int, int]] = []
        for window in rules.windows:
            place, since = len(free), self.log.find_since(now - window.length_s)
            entries = self.log.entries[since:]
            free.append(window.limit - sum(amount for _, amount in entries) - held)
            events += [(at + window.length_s, place, amount) for at, amount in entries]
        if rules.bucket:
            self._refill(rules.bucket, now)
            # It comes back all the time; a few steps of it are enough.
            step_s = self.owed * rules.bucket.length_s / rules.bucket.limit / BUCKET_STEPS
            events += [(now + step_s * step, len(free), int(self.owed / BUCKET_STEPS)) for step in range(1, BUCKET_STEPS + 1)]
            free.append(int(rules.bucket.limit - self.owed - held))
        # What the next period allows can only grow until it begins.
        if rules.ramp:
            self._turn(rules.ramp, now)
            next_allowed = max(rules.ramp.limit, 2 * self.started, self.allowed // 2)
            if self.ends_at is not None:
                events.append((self.ends_at, len(free), max(next_allowed - self.allowed + self.started, 0)))
            free.append(self.allowed - self.started - held)
        rooms = [Room(now, min(free))]
        for at, place, amount in sorted(events):
            free[place] += amount
            if (least := min(free)) > rooms[-1].amount:
                rooms.append(Room(at, least))
        return rooms

    def compact(self, rules: MeterRules, now: float) -> None:
        """Forget what no limit counts any more."""
        self.log.compact(now, [window.length_s for window in rules.windows])

    def set_back(self, now: float) -> None:
        """Let nothing count for longer than if it had been used now: the clock was set back."""
        self.log.entries = [(min(at, now), amount) for at, amount in self.log.entries]
        self.owed_at = min(self.owed_at, now)
        self.ends_at = None

    def _refill(self, bucket: Window, now: float) -> None:
        back = bucket.limit / bucket.length_s * max(now - self.owed_at, 0.0)
        self.owed, self.owed_at = max(self.owed - back, 0.0), now

    def _turn(self, ramp: Window, now: float) -> None:
        """Begin the period of the ramp that `now` is in; see `StartRamp`."""
        self.allowed = max(self.allowed, ramp.limit)
        if self.ends_at is None or now < self.ends_at:
            return
        periods = 1 + int((now - self.ends_at) / ramp.length_s)
        warm = max(2 * self.started, self.allowed // 2)
        self.allowed, self.started = max(ramp.limit, int(warm / 2 ** min(periods - 1, 64))), 0
        self.ends_at += periods * ramp.length_s
