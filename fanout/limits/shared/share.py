"""One process's part of an account that several processes share: what it asks for, and what it may use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from fanout.limits.shared.counters import SharedStarts, SharedTokens
from fanout.limits.shared.holding import Holding
from fanout.limits.shared.messages import Ask, SharedPause, SliceClaim, SliceDemand, SliceGrant
from fanout.limits.shared.rules import BEAT_S, LEASE_S, SLICE_ASKS, SharedRules, Window

SPARE_RATIO = 1.25
IDLE_ASKS = 4
"""Asks in a row without a new call after which a process keeps nothing ready."""
MIN_FAILURES = 3
"""Asks in a row that fail where the store is away."""
RETRY_S = 1.0
"""Between two attempts to reach a store that is away."""


class Backlog(NamedTuple):
    """Calls of one limiter that wait, and those in flight."""

    interactive: int
    batch: int
    interactive_tokens: int
    batch_tokens: int
    first_tokens: int
    """Of the call that starts next."""
    in_flight: int


class SharingLimiter(Protocol):
    """A limiter, as its share needs it."""

    def measure_backlog(self) -> Backlog:
        """Return the calls that wait and could start, and those in flight."""
        ...

    @property
    def has_queue(self) -> bool:
        """Calls are waiting."""
        ...

    def hold(self, model: str | None, seconds: float, reason: str) -> None:
        """Take over a pause that another process has met."""
        ...

    def pump(self) -> None:
        """Start what can start now."""
        ...


class ProcessShare:
    """One process's part of one account.

    Args:
        member: its name, as the others that share the account know it.
        rules: as this process is configured.
    """

    def __init__(self, member: str, rules: SharedRules) -> None:
        self.member, self.rules = member, rules
        self.wake: Callable[[], None] = lambda: None
        """Has an ask sent as soon as that may be."""
        self.tell: Callable[[str | None, float, str], None] = lambda *_: None
        """Tells the others of a pause: of which model (`None`: of all), until when, and why."""
        self.watch: Callable[[], None] = lambda: None
        """Has pauses looked for as long as calls are made, where no ask brings them."""
        self.ask_s = rules.ask_s
        self.starts, self.tokens = Holding(), Holding()
        self.start_counter, self.token_counter = SharedStarts(self, self.starts), SharedTokens(self, self.tokens)
        self.members = 1
        """Processes that share the account, as far as is known."""
        self.is_alone = False
        """The store is away, and this process goes on by itself."""
        self.is_member = False
        """The others know of it."""
        self.limiter: SharingLimiter | None = None
        self._is_met, self._is_known = True, False
        self._places = 0
        self._most_in_flight: int | None = None
        """Since the last ask; `None`: no call has begun."""
        self._spare_places = self._idle_asks = self._number = 0
        self._has_started = False
        """A call has begun since the last ask or look."""
        self._reached_at = self._failing_since = math.inf
        self._failures = 0
        self.configure(rules)

    def configure(self, rules: SharedRules) -> None:
        """Set other limits; while processes have different ones, the smallest are kept."""
        self.rules = rules
        self.is_informed = rules.has_limits
        """Pauses that others meet come with its asks, or are looked for."""
        self._keep(rules)

    def _keep(self, rules: SharedRules) -> None:
        ramp = [Window(rules.ramp_starts, rules.ramp_s)] if rules.ramp_starts else []
        self.starts.windows = [*rules.list_start_windows(), *ramp]
        bucket = [Window(rules.tokens, rules.period_s)] if rules.tokens and rules.has_bucket else []
        self.tokens.windows = [*rules.list_token_windows(), *bucket]
        self.token_counter.limit = rules.tokens or 1
        self.kept = rules

    def count_places(self, now: float) -> float:
        """Return the calls that may be in flight; infinite without a limit."""
        if self.kept.concurrency is None:
            return math.inf
        if now < self._reached_at + LEASE_S:
            return self._places
        # Others may have taken them for free by now; while the store is away, nobody can.
        return min(self._places, (self.kept.concurrency or 0) // self.members) if self.is_alone else 0

    def has_place(self, in_flight: int, now: float) -> bool:
        """Return whether one more call may be in flight; if not, have an ask sent, whose grant pumps the limiter."""
        if in_flight < self.count_places(now):
            return True
        self.wake()
        return False

    def note_start(self, in_flight: int) -> None:
        """Note that a call begins, with which so many are in flight."""
        self._most_in_flight = max(self._most_in_flight or 0, in_flight)
        self._has_started = True
        if self.is_alone:
            self.wake()
        if not self.is_informed:
            self.watch()

    def take_activity(self) -> bool:
        """Return whether a call waits, or has begun since this was last asked."""
        assert self.limiter
        has_started, self._has_started = self._has_started, False
        return has_started or self.limiter.has_queue

    def take_pauses(self, pauses: Iterable[SharedPause]) -> None:
        """Take over pauses that other processes have met. They only hold calls, so that none can start by them."""
        assert self.limiter
        for model, seconds, reason in pauses:
            self.limiter.hold(model or None, seconds, reason)

    def build_ask(self, now: float, *, is_leaving: bool = False) -> Ask:
        """Return what to ask the store."""
        assert self.limiter
        self._number += 1
        if is_leaving:
            self.starts.drop()
            self.tokens.drop()
        self._idle_asks, self._has_started = (0 if self._has_started else self._idle_asks + 1), False
        if self._idle_asks > IDLE_ASKS:
            self.starts.spare = self.tokens.spare = self._spare_places = 0
        backlog = self.limiter.measure_backlog()
        self.token_counter.expire(now)
        starts = SliceDemand(backlog.interactive, backlog.batch)
        tokens = SliceDemand(backlog.interactive_tokens, backlog.batch_tokens, need=max(backlog.first_tokens, 1))
        return Ask(
            self.member,
            self._number,
            self.rules,
            self.starts.build_claim(self._number, now, starts),
            self.tokens.build_claim(self._number, now, tokens),
            self._claim_places(backlog, now),
            is_leaving,
        )

    def _claim_places(self, backlog: Backlog, now: float) -> SliceClaim:
        places = self.count_places(now)
        if places == math.inf:
            return SliceClaim(backlog.in_flight)
        waiting = backlog.interactive + backlog.batch
        if waiting and backlog.in_flight >= places:
            held, demand = int(places), SliceDemand(backlog.interactive, backlog.batch)
        else:
            # Calls begin and end: as many as there were at once, and some more; what waits, waits for something else.
            most, self._most_in_flight = self._most_in_flight, None
            wanted = backlog.in_flight if most is None else math.ceil(most * SPARE_RATIO) + 1
            wanted = max(wanted, backlog.in_flight + self._spare_places)
            held = min(int(places), wanted)
            demand = SliceDemand(ahead=wanted - held)
        # Until the grant comes no more may start than this ask tells of.
        self._places = held
        # Those above a limit that was lowered are in flight nevertheless.
        return SliceClaim(max(held, backlog.in_flight), demand)

    def accept(self, grant: SliceGrant, sent_at: float, received_at: float) -> None:
        """Take what was granted."""
        assert self.limiter
        self.is_member, self.is_alone = True, False
        self._failing_since, self._failures = math.inf, 0
        self.members, self._is_known, self._is_met = grant.members, grant.is_known, grant.is_met
        # By the sending: the lease began later, so that it ends here before it does there.
        self._reached_at, self.ask_s = sent_at, grant.ask_s
        self._keep(grant.rules)
        ends_at = sent_at + SLICE_ASKS * grant.ask_s
        self.starts.accept(grant.starts, grant.expected_starts, received_at, ends_at)
        self.tokens.accept(grant.tokens, grant.expected_tokens, received_at, ends_at)
        if grant.places is not None:
            self._places = grant.places
        self.starts.spare, self.tokens.spare, self._spare_places = grant.spare_starts, grant.spare_tokens, grant.spare_places
        self.take_pauses(grant.pauses)
        self.limiter.pump()

    def fail(self, sent_at: float, now: float) -> None:
        """Note that the store could not be reached by an ask that was sent then."""
        assert self.limiter
        self._failing_since, self._failures = min(self._failing_since, sent_at), self._failures + 1
        self.starts.fail(now)
        self.tokens.fail(now)
        # One answer that got lost is no outage: the others still have the store, and what this process would use.
        is_lost = self._failures >= MIN_FAILURES and now - self._failing_since >= self.kept.lost_s
        if not self.is_alone and is_lost:
            self.is_alone = True
            # The others may have had a slice until then.
            since = now + SLICE_ASKS * self.ask_s
            for holding in (self.starts, self.tokens):
                holding.go_alone(self._failing_since, since, self.members, is_known=self._is_known and self.is_member)
        self.limiter.pump()

    def leave(self) -> None:
        """Hold nothing from now on."""
        self.is_member, self._is_known, self._places = False, False, 0

    def find_pause_s(self, now: float) -> float | None:
        """Return the time until the next ask; `None`: nothing is held, and none is needed."""
        assert self.limiter
        backlog = self.limiter.measure_backlog()
        # Above its places: others wait for the ends of its calls, and must not take it for gone.
        owes_places = backlog.in_flight > self._places if self.kept.concurrency is not None else False
        is_busy = backlog.interactive or backlog.batch or self._holds_slice or owes_places
        is_holding = self._places or self.starts.open or self.tokens.open or self._is_in_window(now)
        # Nothing is owed to a store that is away by a process with nothing to do: its lease ends by itself.
        if self._failing_since < math.inf:
            return min(RETRY_S, self.kept.lost_s / 2) if is_busy or is_holding else None
        return self.ask_s if is_busy else BEAT_S if is_holding else None

    @property
    def may_leave(self) -> bool:
        """The others know of it, and hear it if it goes."""
        return self.is_member and self._failing_since == math.inf

    @property
    def spacing_s(self) -> float:
        """The shortest time between two asks, even if calls wait."""
        return self.ask_s / 5 if self._is_met and self._failing_since == math.inf else self.ask_s

    @property
    def _holds_slice(self) -> bool:
        has_places = self.kept.concurrency is not None and self._most_in_flight is not None
        return has_places or self.starts.has_news or self.tokens.has_news

    def _is_in_window(self, now: float) -> bool:
        return any(one.log.count_since(now - one.span_s) for one in (self.starts, self.tokens))
