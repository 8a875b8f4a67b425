"""A simulation of processes that share an account: clocks that differ, a network, crashes and outages, no real time."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from fanout.limits.shared.account import SharedAccount
from fanout.limits.shared.messages import Ask, SliceGrant
from fanout.limits.shared.rules import SharedRules
from fanout.limits.shared.share import Backlog, ProcessShare
from fanout.store.limits.limit_table import state_json

TIMEOUT_S = 2.0
"""Of an ask."""


@dataclass
class World:
    """Everything, in true time."""

    seed: int = 0
    latency_s: float = 0.004
    lost_share: float = 0.0
    """Of the answers to asks that have been committed."""
    now: float = 1000.0
    database_offset_s: float = 1.7e9
    state: str = state_json().dump_json(SharedAccount()).decode()
    is_away: bool = False
    asks: int = 0
    starts: list[tuple[float, str]] = field(default_factory=list)
    """Of calls, when they left, and their processes."""
    tokens: list[tuple[float, int]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random, self._numbers = random.Random(self.seed), count()

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heappush(self._events, (self.now + max(delay_s, 0.0), next(self._numbers), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heappop(self._events)
            action()
        self.now = end

    def draw_latency_s(self) -> float:
        return self.random.expovariate(1 / self.latency_s)

    def commit(self, ask: Ask) -> SliceGrant | None:
        """Answer an ask, as the table does."""
        state = state_json().validate_json(self.state)
        grant = state.answer(ask, self.now + self.database_offset_s)
        self.state = state_json().dump_json(state).decode()
        self.asks += 1
        return grant

    def count_most_starts(self, length_s: float) -> int:
        """Return the most starts in any window."""
        times = sorted(at for at, _ in self.starts)
        most = first = 0
        for place, at in enumerate(times):
            while at - times[first] >= length_s:
                first += 1
            most = max(most, place - first + 1)
        return most

    def count_most_tokens(self, length_s: float) -> int:
        """Return the most tokens in any window."""
        entries, most, first, total = sorted(self.tokens), 0, 0, 0
        for at, amount in entries:
            total += amount
            while at - entries[first][0] >= length_s:
                total -= entries[first][1]
                first += 1
            most = max(most, total)
        return most


class SimulatedProcess:
    """One process: a queue, a share, and an asker with the rules of the real one."""

    def __init__(
        self, world: World, name: str, rules: SharedRules, *, call_s: float = 0.5, tokens: int = 0, leaving_s: float = 0.0
    ) -> None:
        self.world, self.name, self.call_s, self.tokens_of_call, self.leaving_s = world, name, call_s, tokens, leaving_s
        self.share = ProcessShare(name, rules)
        self.share.limiter, self.share.wake = self, self._wake
        self.offset_s = world.random.uniform(0, 1e6)
        self.interactive = self.batch = self.in_flight = 0
        self.is_dead = False
        self.waits_s: list[float] = []
        self._arrived: deque[float] = deque()
        self._sent_at, self._due, self._pump_due = -math.inf, math.inf, math.inf
        self._is_asking = self._is_wanted = False
        self._lost = 0
        """Answers in a row."""

    @property
    def now(self) -> float:
        return self.world.now + self.offset_s

    def add(self, interactive: int = 0, batch: int = 0) -> None:
        """Let calls arrive."""
        self.interactive += interactive
        self.batch += batch
        self._arrived += [self.world.now] * (interactive + batch)
        self.pump()

    def measure_backlog(self) -> Backlog:
        need = self.tokens_of_call
        return Backlog(self.interactive, self.batch, self.interactive * need, self.batch * need, need, self.in_flight)

    @property
    def has_queue(self) -> bool:
        return self.interactive + self.batch > 0

    def hold(self, model: str | None, seconds: float, reason: str) -> None:
        raise NotImplementedError

    def pump(self) -> None:
        share, rules = self.share, self.share.rules
        while (self.interactive or self.batch) and not self.is_dead:
            now = self.now
            if self.in_flight >= share.count_places(now):
                self._wake()
                return
            wait_s = share.start_counter.compute_wait_s(now) if rules.requests or rules.ramp_starts else 0.0
            if rules.tokens:
                wait_s = max(wait_s, share.token_counter.compute_wait_s(now, self.tokens_of_call))
            if wait_s:
                self._pump_at(self.world.now + wait_s)
                return
            self._start()

    def _pump_at(self, at: float) -> None:
        if at < self._pump_due or self._pump_due <= self.world.now:
            self._pump_due = at
            self.world.at(at - self.world.now, lambda: self.pump() if at == self._pump_due else None)

    def _start(self) -> None:
        rules, share = self.share.rules, self.share
        self.interactive, self.batch = (self.interactive - 1, self.batch) if self.interactive else (0, self.batch - 1)
        self.waits_s.append(self.world.now - self._arrived.popleft())
        self.in_flight += 1
        if rules.requests or rules.ramp_starts:
            share.start_counter.reserve()
        if rules.tokens:
            share.token_counter.reserve(self.tokens_of_call)
        share.note_start(self.in_flight)
        self.world.at(self.world.random.uniform(0, self.leaving_s), self._leave)

    def _leave(self) -> None:
        if self.is_dead:
            return
        rules, share = self.share.rules, self.share
        if rules.requests or rules.ramp_starts:
            share.start_counter.count(self.now)
        part = share.token_counter.count(self.now, self.tokens_of_call) if rules.tokens else None
        self.world.starts.append((self.world.now, self.name))
        self.world.tokens.append((self.world.now, self.tokens_of_call))
        self.world.in_flight += 1
        self.world.most_in_flight = max(self.world.most_in_flight, self.world.in_flight)

        def end() -> None:
            if not self.is_dead:
                self.in_flight -= 1
                self.world.in_flight -= 1
                if part:
                    share.token_counter.settle(part, self.tokens_of_call, self.tokens_of_call)
                self.pump()

        self.world.at(self.call_s, end)

    def kill(self) -> None:
        """End it without a word; its calls end upstream."""
        self.is_dead = True
        self.world.in_flight -= self.in_flight

    def _wake(self) -> None:
        if self._is_asking:
            self._is_wanted = True
        else:
            self._schedule(max(self._sent_at + self.share.spacing_s, self.now))

    def _schedule(self, due: float) -> None:
        if due < self._due:
            self._due = due
            self.world.at(due - self.now, lambda: self._ask_if(due))

    def _ask_if(self, due: float) -> None:
        if due == self._due and not self._is_asking and not self.is_dead:
            self._ask()

    def _ask(self, *, is_leaving: bool = False) -> None:
        world, sent_at = self.world, self.now
        self._sent_at, self._due, self._is_asking, self._is_wanted = sent_at, math.inf, True, False
        ask = self.share.build_ask(sent_at, is_leaving=is_leaving)
        if is_leaving:
            self.share.leave()

        def fail() -> None:
            if not self.is_dead:
                self.share.fail(sent_at, self.now)
                self._end()

        def commit() -> None:
            grant = world.commit(ask)
            self._lost = self._lost + 1 if self._lost < 2 and world.random.random() < world.lost_share else 0
            if self._lost:
                world.at(TIMEOUT_S, fail)
            else:
                world.at(world.draw_latency_s(), lambda: accept(grant))

        def accept(grant: SliceGrant | None) -> None:
            if not self.is_dead:
                if grant:
                    self.share.accept(grant, sent_at, self.now)
                self._end()

        world.at(world.draw_latency_s(), fail if world.is_away else commit)

    def _end(self) -> None:
        self._is_asking = False
        pause_s = self.share.find_pause_s(self.now)
        if self._is_wanted:
            self._wake()
        if pause_s is not None:
            self._schedule(self._sent_at + pause_s)
        elif self.share.may_leave:
            self._ask(is_leaving=True)
