"""The row that processes share for one account: a state, and the function that answers an ask and changes it.

Nothing here reads a clock or waits: the database's time is an argument. All that any process used in the last period stands in
the logs, and what it may still use stands in `held`; both together never exceed a limit. What a process has used leaves its
`held` and enters the log when it reports it, at the time at which it was used, or a little later: the age of a use is measured
from the sending of the ask, and the ask is answered after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fanout.limits.arrivals import add_skew
from fanout.limits.pauses import MAX_PAUSE_S
from fanout.limits.shared.allotment import SliceStanding, allot, compute_level
from fanout.limits.shared.messages import Ask, Part, SharedPause, SliceClaim, SliceDemand, SliceGrant
from fanout.limits.shared.meter import Meter, MeterRules, Room
from fanout.limits.shared.rules import LEASE_S, MAX_ASKS_PER_S, SILENT_S, SharedRules, Window, combine

FRESH_ASKS = 2.5
"""Of a process that has not been heard of for so many asks, nobody expects that it still wants something."""
SPARE_PARTS = 4
"""What is free is divided by this and by the processes: so much each may keep ready while it has calls."""
LEAST_SPARE = 16
"""Of fewer, each is for whoever asks for it."""
MAX_PAUSES = 128
"""Callers choose the names of models."""
MAX_OUTAGE_S = 3600.0
"""A process that was not heard of for longer is not expected to come back."""


class Member(NamedTuple):
    """One process, as the others know it."""

    number: int
    """Of its last ask."""
    joined: float
    seen: float
    until: float
    """When it is taken for dead."""
    members: int
    """That it knows of."""
    rules: SharedRules
    silent_until: float = 0.0
    """While it has not been heard of since an outage, in which it may have gone on by itself, something is left for that."""
    starts: SliceStanding = SliceStanding()
    tokens: SliceStanding = SliceStanding()
    places: SliceStanding = SliceStanding()


@dataclass(slots=True)
class SharedAccount:
    """The state of one account over all processes."""

    at: float = 0.0
    """Of the last ask of any process."""
    members: dict[str, Member] = field(default_factory=dict)
    starts: Meter = field(default_factory=Meter)
    tokens: Meter = field(default_factory=Meter)
    pauses: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By model: their ends and reasons."""

    def answer(self, ask: Ask, now: float) -> SliceGrant | None:
        """Return what a process gets; `None` for an ask that came after a later one, or that says goodbye."""
        self._set_clock(now)
        now = self.at
        mine = self.members.get(ask.member) or Member(0, now, now, now, 1, ask.rules)
        # Its sender has given it up, and has told in a later one what it holds.
        if ask.number <= mine.number:
            return None
        self.members.pop(ask.member, None)
        self._count_the_dead(now)
        rules = combine([ask.rules, *(member.rules for member in self.members.values())])
        starts, tokens = _list_meter_rules(rules)
        self.starts.read(starts, now, ask.starts.reports, mine.number)
        self.tokens.read(tokens, now, ask.tokens.reports, mine.number)
        self._end_pauses(now)
        if ask.is_leaving:
            # Calls that are under way may leave yet.
            self.starts.use(starts, now, now, ask.starts.held)
            self.tokens.use(tokens, now, now, ask.tokens.held)
            return None
        return self._grant(ask, mine, rules, now)

    def pause(self, pauses: Iterable[SharedPause], now: float) -> None:
        """Take over pauses that a process has met."""
        self._set_clock(now)
        for model, seconds, reason in pauses:
            end = self.at + min(seconds, MAX_PAUSE_S)
            if end > self.pauses.get(model, (0.0, ""))[0]:
                self.pauses[model] = (end, reason)
        self._end_pauses(self.at)

    def list_pauses(self, now: float) -> list[SharedPause]:
        """Return the pauses that are not over."""
        return [SharedPause(model, end - now, reason) for model, (end, reason) in self.pauses.items() if end > now]

    @property
    def is_spent(self) -> bool:
        """Nothing in it matters any more."""
        return not (self.members or self.pauses or self.starts.log.entries or self.tokens.log.entries or self.tokens.owed)

    def _grant(self, ask: Ask, mine: Member, rules: SharedRules, now: float) -> SliceGrant:
        count = len(self.members) + 1
        ask_s = max(rules.ask_s, count / MAX_ASKS_PER_S)
        for_starts, for_tokens = (self._reserve(limits, now) for limits in _list_meter_rules(rules))
        fresh = [member for member in self.members.values() if now - member.seen <= FRESH_ASKS * ask_s]
        # What will be free before its slice ends is granted by its time, so that nothing lies idle between two asks.
        until = now + 2 * ask_s
        start_parts, start_rooms, starts, spare_starts = _take(
            self.starts, for_starts, ask.starts, mine.starts, [one.starts for one in self._living(fresh)], now, until
        )
        token_parts, token_rooms, tokens, spare_tokens = _take(
            self.tokens, for_tokens, ask.tokens, mine.tokens, [one.tokens for one in self._living(fresh)], now, until
        )
        places, standing, spare_places = self._lease_places(ask.places, mine.places, rules.concurrency, fresh, now)
        self.members[ask.member] = Member(
            ask.number, mine.joined, now, now + LEASE_S, count, ask.rules, 0.0, starts, tokens, standing
        )
        self.starts.compact(for_starts, now)
        self.tokens.compact(for_tokens, now)
        return SliceGrant(
            starts=start_parts,
            tokens=token_parts,
            places=places,
            members=count,
            is_known=now - mine.joined >= LEASE_S,
            ask_s=ask_s,
            is_met=not (starts.wants or tokens.wants or standing.wants),
            rules=rules,
            pauses=self.list_pauses(now),
            expected_starts=_render_rooms(start_rooms, now) if starts.wants else (),
            expected_tokens=_render_rooms(token_rooms, now) if tokens.wants else (),
            spare_starts=spare_starts,
            spare_tokens=spare_tokens,
            spare_places=spare_places,
        )

    def _living(self, fresh: list[Member]) -> Iterator[Member]:
        """Yield every other process; of one that is no longer fresh, only what it holds."""
        for member in self.members.values():
            if member in fresh:
                yield member
            else:
                yield member._replace(
                    starts=SliceStanding(member.starts.held),
                    tokens=SliceStanding(member.tokens.held),
                    places=SliceStanding(member.places.held),
                )

    def _set_clock(self, now: float) -> None:
        """Take the time, and find out whether the store was away."""
        if self.at - now > LEASE_S:  # far more than two transactions can be apart
            for meter in (self.starts, self.tokens):
                meter.set_back(now)
            self.members = {name: one._replace(joined=now, seen=now, until=now + LEASE_S) for name, one in self.members.items()}
            self.pauses = {model: (min(end, now + MAX_PAUSE_S), why) for model, (end, why) in self.pauses.items()}
            self.at = now
        # Nobody goes on by itself before it has been without the store for so long.
        lost_s = min((member.rules.lost_s for member in self.members.values()), default=now)
        if now - self.at >= lost_s:
            # Nobody was heard of: perhaps nobody could be, and each of them has gone on by itself.
            self.members = {
                name: one._replace(silent_until=now + SILENT_S, until=max(one.until, now + SILENT_S))
                for name, one in self.members.items()
                if now - one.seen < MAX_OUTAGE_S
            }
        self.at = max(now, self.at)

    def _count_the_dead(self, now: float) -> None:
        """Count what the dead held as used when they were taken for dead."""
        for name, member in list(self.members.items()):
            if member.until <= now:
                del self.members[name]
                starts, tokens = _list_meter_rules(member.rules)
                self.starts.use(starts, now, member.until, member.starts.held)
                self.tokens.use(tokens, now, member.until, member.tokens.held)

    def _reserve(self, rules: MeterRules, now: float) -> MeterRules:
        """Return the rules without what processes may use that have not been heard of since an outage."""
        silent = [member for member in self.members.values() if now < member.silent_until]
        if not silent:
            return rules

        def lower(window: Window) -> Window:
            limit = window.limit
            for member in silent:
                is_recent = now - member.seen < window.length_s
                used = max(member.starts.in_window, member.tokens.in_window)
                share = window.limit // member.members
                limit -= min(share, used) if is_recent else share
            return window._replace(limit=max(limit, 0))

        windows, bucket, ramp = rules
        return MeterRules(
            [lower(window) for window in windows],
            lower(bucket) if bucket and bucket.limit else None,
            ramp and ramp._replace(limit=max(lower(ramp).limit, 1)),
        )

    def _lease_places(
        self, claim: SliceClaim, mine: SliceStanding, limit: int | None, fresh: list[Member], now: float
    ) -> tuple[int | None, SliceStanding, int]:
        if limit is None:
            return None, SliceStanding(), 0
        others = [member.places for member in self._living(fresh)]
        since = mine.since if mine.since is not None and mine.wants else now
        free = limit - claim.held - sum(other.held for other in others)
        spare = _compute_spare(free, others)
        granted = allot(free, _add_spare(claim.demand, spare), since, others)
        places = claim.held + granted
        if any(other.wants for other in others):
            # Whoever has more than a fair share gives places back as its calls end; of batch, all that interactive calls want.
            wants = [other.held + other.wants for other in others]
            fair = compute_level(limit, [claim.held + claim.demand.interactive + claim.demand.batch, *wants])
            # Not for those who have as much already: what cannot be divided would lie idle, of 5 places and 3 processes two.
            if any(other.wants and other.held < max(fair, 1) for other in others):
                places = min(places, max(fair, granted))
            # Its batch calls that end are not followed by others.
            if not claim.demand.interactive:
                places = min(places, max(claim.held + granted - sum(other.interactive for other in others), 0))
        return places, _stand(max(claim.held, places), claim, granted, since, now), spare

    def _end_pauses(self, now: float) -> None:
        self.pauses = {model: one for model, one in self.pauses.items() if one[0] > now}
        while len(self.pauses) > MAX_PAUSES:
            del self.pauses[min(self.pauses, key=lambda model: self.pauses[model][0])]


def _list_meter_rules(rules: SharedRules) -> tuple[MeterRules, MeterRules]:
    """Return the rules of starts and of tokens."""
    ramp = Window(rules.ramp_starts, rules.ramp_s) if rules.ramp_starts else None
    bucket = Window(rules.tokens, add_skew(rules.period_s)) if rules.tokens and rules.has_bucket else None
    return MeterRules(rules.list_start_windows(), ramp=ramp), MeterRules(rules.list_token_windows(), bucket=bucket)


def _take(
    meter: Meter,
    rules: MeterRules,
    claim: SliceClaim,
    mine: SliceStanding,
    others: list[SliceStanding],
    now: float,
    until: float,
) -> tuple[list[Part], list[Room], SliceStanding, int]:
    """Grant what a process gets of one quantity, now and until its slice ends; return also what it may keep ready."""
    if not rules.is_limited:
        return [], [], SliceStanding(), 0
    held = claim.held + sum(other.held for other in others)
    rooms = meter.list_rooms(rules, held, now)
    soon = [room for room in rooms if room.at <= until]
    since = mine.since if mine.since is not None and mine.wants else now
    spare = _compute_spare(soon[0].amount if soon[0].at <= now else 0, others)
    granted = allot(soon[-1].amount, _add_spare(claim.demand, spare), since, others)
    parts, left = [], granted
    for room in soon:
        part = min(left, room.amount - (granted - left))
        if part > 0:
            parts.append(Part(max(room.at - now, 0.0), part))
            left -= part
    return parts, rooms, _stand(claim.held + granted, claim, granted, since, now), spare


def _compute_spare(free: int, others: Sequence[SliceStanding]) -> int:
    # A part of what is free, not of the limit: near the limit there is none, and nothing lies idle with anybody.
    spare = max(free, 0) // (SPARE_PARTS * (len(others) + 1))
    return spare if spare >= LEAST_SPARE else 0


def _add_spare(demand: SliceDemand, spare: int) -> SliceDemand:
    """Return the demand of a process that has calls, which get something ahead."""
    is_idle = not (demand.interactive or demand.batch or demand.ahead)
    return demand if is_idle else demand._replace(ahead=max(demand.ahead, spare))


def _stand(held: int, claim: SliceClaim, granted: int, since: float, now: float) -> SliceStanding:
    """Return a process's standing after a grant: one that was served goes behind those that were not."""
    interactive = max(claim.demand.interactive - granted, 0)
    batch = max(claim.demand.batch - max(granted - claim.demand.interactive, 0), 0)
    return SliceStanding(held, interactive, batch, claim.demand.need, now if granted else since, claim.in_window)


def _render_rooms(rooms: list[Room], now: float) -> list[Part]:
    return [Part(max(room.at - now, 0.0), room.amount) for room in rooms]
