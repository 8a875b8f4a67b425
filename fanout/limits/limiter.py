"""What one provider account may do at once and in a minute: who starts now, who waits, and in which order.

Nothing here is a task. A waiter is a future in a queue; `_pump`, a plain function, grants what can be granted whenever
something changed (an arrival, an end, a timer set for the next opening), so 10,000 waiters cost nothing while they wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from fanout.config.settings import LimitsRow
from fanout.core.errors import ProviderError
from fanout.core.schema import Failure, Left, Rate
from fanout.limits.upstream_quota import NOT_REPORTED, CallStart, QuotaEstimate, UpstreamQuota
from fanout.limits.windows import Slice, TokenWindow, windows

MAX_PAUSE_S = 60.0
MINUTE_S = 60.0
MAX_QUOTAS = 128
"""Callers choose the models' names: of more the oldest is forgotten."""


class Priority(IntEnum):
    """Lower is served first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(slots=True, eq=False)
class _Waiter:
    number: int
    model: str
    tokens: int
    priority: Priority
    granted: asyncio.Future[Permit]


@dataclass(slots=True, eq=False)
class Permit:
    """The right to one attempt; given back through `Limiter.release`."""

    share: UpstreamQuota
    started: CallStart
    part: Slice | None = None
    """Where the tokens stand."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing of a model starts now; `model` is `None` where it holds for all that the limiter counts."""

    model: str | None
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ReportedLimits:
    """What the upstream said last of what is left, as it was then."""

    model: str | None
    requests: Left
    tokens: Left
    age_s: float


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """What `/metrics` and `/v1/providers` show of one limiter."""

    in_flight: int
    waiting: int
    waiting_batch: int
    paused_s: float
    paused_models: tuple[str, ...]


class InFlightCap:
    """Calls in flight over all accounts: kept below the limit on open files."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._pumps: dict[Callable[[], None], None] = {}

    def open(self, pump: Callable[[], None]) -> bool:
        """Whether one more may start; if not, `pump` is called once when one ends."""
        if self.used < self.limit:
            return True
        self._pumps[pump] = None
        return False

    def release(self) -> None:
        self.used -= 1
        while self._pumps and self.used < self.limit:
            pump = next(iter(self._pumps))
            del self._pumps[pump]
            pump()


class _Queue:
    """The waiters for one model by number of arrival, first in first out within each priority."""

    def __init__(self) -> None:
        # OrderedDict: the first one and any one leave in constant time, also when thousands leave at once.
        self.lanes: tuple[OrderedDict[int, _Waiter], ...] = tuple(OrderedDict() for _ in Priority)
        self.tokens = [0 for _ in Priority]

    def head(self) -> _Waiter | None:
        return next((waiter for lane in self.lanes for waiter in lane.values()), None)

    def ahead(self, priority: Priority) -> tuple[int, int]:
        """How many wait here who would be served before a new one of this priority, and for how many tokens."""
        return sum(len(lane) for lane in self.lanes[: priority + 1]), sum(self.tokens[: priority + 1])


class Limiter:
    """The limits of one account, or of one group of models in it.

    Besides its own limits it keeps to what the upstream says is left: for each model by itself, as most upstreams count, or
    for all together where they are a group.

    Order within an attempt: calls in flight, then tokens, then the start slot last; taken the other way round, starts
    that had waited for a free place would come in bursts above the rate.
    """

    def __init__(
        self,
        name: str,
        limits: LimitsRow,
        cap: InFlightCap | None = None,
        *,
        max_waiting: int = 20_000,
        period_s: float = MINUTE_S,
        is_group: bool = False,
    ) -> None:
        self.name = name
        self.limits = limits
        self.counts_tokens = limits.tokens_per_minute is not None
        """Whether `acquire` wants to know how much is asked."""
        self.concurrency: float = limits.concurrency or math.inf
        """Calls in flight at once; may be changed at any time, followed by `resized()`."""
        self.in_flight = 0
        self._cap = cap or InFlightCap(2**31)
        self._max_waiting = max_waiting
        self._starts = list(windows(limits, period_s))
        self._tokens = TokenWindow(limits.tokens_per_minute, period_s) if limits.tokens_per_minute else None
        self._queues: dict[str, _Queue] = {}
        self._waiting = [0 for _ in Priority]
        self._waiting_tokens = [0 for _ in Priority]
        self._arrivals = 0
        self._paused: dict[str | None, float] = {}
        self._reasons: dict[str | None, str] = {}
        self._is_group = is_group
        self._shares: dict[str | None, UpstreamQuota] = {}
        self._told = False
        """The upstream has said what is left."""
        self._timer: asyncio.TimerHandle | None = None
        self._mean_output_tokens = 256.0

    async def acquire(
        self, model: str, *, input_bytes: int = 0, max_tokens: int | None = None, priority: Priority, deadline: float
    ) -> Permit:
        """Waits for a place, in order of priority and arrival.

        Args:
            model: the upstream's name; a pause may hold for one model alone.
            input_bytes, max_tokens: what the tokens are estimated from, until `release` tells.
            deadline: on `time.monotonic`.

        Raises:
            ProviderError: kind `rate_limit`: the wait would outlast, or has outlasted, the deadline, or the queue is full.
        """
        tokens = self._reserved(input_bytes, max_tokens) if self.counts_tokens else 0
        now = time.monotonic()
        if not any(self._waiting) and not self._admits_in_s(model, tokens, now):
            return self._grant(model, tokens, now)
        waiter = self._enqueue(model, tokens, priority, now, deadline)
        try:
            async with asyncio.timeout(deadline - now):
                return await waiter.granted
        except TimeoutError:
            self._left(waiter)
            raise self._too_long(f"the deadline came after {deadline - now:.3g} s of waiting") from None
        except asyncio.CancelledError:
            self._left(waiter)
            raise

    def release(self, permit: Permit, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Frees the place and settles the tokens with what was really used, where that is known."""
        self.in_flight -= 1
        permit.share.end(permit.started)
        if self.counts_tokens and input_tokens is not None and output_tokens is not None:
            if permit.part and self._tokens:
                self._tokens.settle(permit.part, permit.started.tokens, input_tokens + output_tokens)
            self._mean_output_tokens += 0.05 * (output_tokens - self._mean_output_tokens)
        self._cap.release()
        self._pump()

    def record_headers(self, permit: Permit, rate: Rate) -> None:
        """The headers of this attempt's answer say what is left."""
        permit.share.read(time.monotonic(), rate, permit.started)
        self._told = True
        self.counts_tokens = self.counts_tokens or permit.share.tokens is not None
        self._pump()

    def pause(self, model: str | None, seconds: float, reason: str = "rate_limit") -> None:
        """Nothing of `model` (`None`: of the whole account) starts for `seconds`, at most a minute; never shortens a pause."""
        now = time.monotonic()
        until = max(self._paused.get(model, 0.0), now + min(seconds, MAX_PAUSE_S))
        # Callers choose the models' names: those that are over and never asked for again must not pile up.
        self._paused = {name: end for name, end in self._paused.items() if end > now} | {model: until}
        self._reasons = {name: self._reasons.get(name, reason) for name in self._paused} | {model: reason}
        self._pump()

    def resized(self) -> None:
        """`concurrency` was changed."""
        self._pump()

    @property
    def is_idle(self) -> bool:
        return not self.in_flight and not any(self._waiting)

    def snapshot(self) -> LimiterSnapshot:
        now = time.monotonic()
        return LimiterSnapshot(
            in_flight=self.in_flight,
            waiting=sum(self._waiting),
            waiting_batch=self._waiting[Priority.BATCH],
            paused_s=max(self._paused.get(None, 0.0) - now, 0.0),
            paused_models=tuple(model for model, until in self._paused.items() if model is not None and until > now),
        )

    def list_holds(self) -> list[Hold]:
        """What is held back now, and why: `requests_left` and `tokens_left` are what the upstream says of its own limits."""
        now = time.monotonic()
        found = [Hold(model, until - now, self._reasons[model]) for model, until in self._paused.items() if until > now]
        for model, share in self._shares.items():
            for reason, allowance in (("requests_left", share.requests), ("tokens_left", share.tokens)):
                if allowance and (held_s := allowance.opens_in_s(now, 1)):
                    found.append(Hold(model, held_s, reason))
        return found

    def list_reported(self) -> list[ReportedLimits]:
        """What the upstream said last, by model; nothing where it says nothing."""
        now = time.monotonic()
        return [
            ReportedLimits(model, _said(share.requests), _said(share.tokens), now - share.said_at)
            for model, share in self._shares.items()
            if share.said_at > -math.inf
        ]

    def _reserved(self, input_bytes: int, max_tokens: int | None) -> int:
        """A guess at what the call will use; one above the whole limit waits for an empty window, not for ever."""
        output = max_tokens if max_tokens is not None else round(self._mean_output_tokens)
        tokens = max(1, input_bytes // 4 + output)
        return min(tokens, self._tokens.limit) if self._tokens else tokens

    def _share(self, model: str) -> UpstreamQuota:
        key = None if self._is_group else model
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = UpstreamQuota()
            if len(self._shares) > MAX_QUOTAS:
                del self._shares[next(iter(self._shares))]
        return share

    def _admits_in_s(self, model: str, tokens: int, now: float) -> float:
        """How long until this call could start if it were the only one; infinite: when another call ends."""
        wait = self._opens_in_s(now)
        if self._paused or self._told:
            wait = max(wait, self._held_s(model, tokens, now))
        return max(wait, self._room_s(tokens, now)) if self.counts_tokens or self._is_group else wait

    def _held_s(self, model: str, tokens: int, now: float) -> float:
        """How long a call of this model stands aside, for reasons that do not concern the others."""
        wait = self._pause_s(model, now) if self._paused else 0.0
        if self._told and not self._is_group and (share := self._shares.get(model)) is not None:
            wait = max(wait, share.opens_in_s(now, tokens))
        return wait

    def _room_s(self, tokens: int, now: float) -> float:
        """How long until there is room for this call, for reasons that concern all."""
        wait = self._tokens.opens_in_s(now, tokens) if self._tokens else 0.0
        if self._is_group and (share := self._shares.get(None)) is not None:
            wait = max(wait, share.opens_in_s(now, tokens))
        return wait

    def _opens_in_s(self, now: float) -> float:
        """How long until any call could start here; infinite: when another call ends."""
        if self.in_flight >= self.concurrency or not self._cap.open(self._pump):
            return math.inf
        wait = self._pause_s(None, now) if self._paused else 0.0
        for window in self._starts:
            wait = max(wait, window.opens_in_s(now))
        return wait

    def _pause_s(self, model: str | None, now: float) -> float:
        until = self._paused.get(model)
        if until is None:
            return 0.0
        if until <= now:
            del self._paused[model]
            return 0.0
        return until - now

    def _grant(self, model: str, tokens: int, now: float) -> Permit:
        self.in_flight += 1
        self._cap.used += 1
        for window in self._starts:
            window.take(now)
        share = self._share(model)
        return Permit(share, share.start(now, tokens), self._tokens.take(now, tokens) if self._tokens else None)

    def _enqueue(self, model: str, tokens: int, priority: Priority, now: float, deadline: float) -> _Waiter:
        expected = self._expected_s(model, tokens, priority, now)
        if sum(self._waiting) >= self._max_waiting:
            raise self._too_long(f"{self._max_waiting} calls wait already", expected)
        if now + expected > deadline:
            paused = expected <= max(
                self._pause_s(None, now), self._pause_s(model, now), self._said_s(model, tokens, priority, now)
            )
            raise self._too_long(f"the deadline is {max(deadline - now, 0):.3g} s away", expected, paused=paused)
        self._arrivals += 1
        waiter = _Waiter(self._arrivals, model, tokens, priority, asyncio.get_running_loop().create_future())
        queue = self._queues.setdefault(model, _Queue())
        queue.lanes[priority][waiter.number] = waiter
        queue.tokens[priority] += tokens
        self._waiting[priority] += 1
        self._waiting_tokens[priority] += tokens
        self._pump()
        return waiter

    def _left(self, waiter: _Waiter) -> None:
        """The waiter's task is gone. A place granted to it in that very moment is given back."""
        if waiter.granted.cancelled():
            self._remove(waiter)
            self._pump()
        else:
            self.release(waiter.granted.result())

    def _remove(self, waiter: _Waiter) -> None:
        """Out of the queue; nothing where it has left already."""
        queue = self._queues.get(waiter.model)
        if queue and queue.lanes[waiter.priority].pop(waiter.number, None):
            queue.tokens[waiter.priority] -= waiter.tokens
            self._waiting[waiter.priority] -= 1
            self._waiting_tokens[waiter.priority] -= waiter.tokens
            if not any(queue.lanes):
                del self._queues[waiter.model]

    def _expected_s(self, model: str, tokens: int, priority: Priority, now: float) -> float:
        """The least this call will wait, from the rates alone: how long the calls in flight take nobody knows."""
        ahead, tokens_ahead = sum(self._waiting[: priority + 1]), sum(self._waiting_tokens[: priority + 1])
        for name in self._aside(now):
            if name != model:  # its waiters are before nobody else
                waiters, waiting_tokens = self._queues[name].ahead(priority)
                ahead, tokens_ahead = ahead - waiters, tokens_ahead - waiting_tokens
        wait = max(self._pause_s(None, now), self._pause_s(model, now), self._said_s(model, tokens, priority, now))
        if self._tokens:
            wait = max(wait, self._tokens.opens_in_s(now, tokens_ahead + tokens))
        return max([wait, *(window.opens_in_s(now, ahead + 1) for window in self._starts)])

    def _aside(self, now: float) -> list[str]:
        """The models whose waiters stand aside."""
        names = [*self._paused, *(self._shares if self._told else ())]
        waiting = [name for name in dict.fromkeys(names) if name is not None and name in self._queues]
        return [name for name in waiting if self._held_s(name, 1, now)]

    def _said_s(self, model: str, tokens: int, priority: Priority, now: float) -> float:
        """The least that this call will wait for what the upstream says is left."""
        share = self._shares.get(None if self._is_group else model) if self._told else None
        if share is None:
            return 0.0
        if self._is_group:
            ahead, tokens_ahead = sum(self._waiting[: priority + 1]), sum(self._waiting_tokens[: priority + 1])
        else:
            ahead, tokens_ahead = self._queues[model].ahead(priority) if model in self._queues else (0, 0)
        return share.opens_in_s(now, tokens, ahead, tokens_ahead)

    def _too_long(self, why: str, expected_s: float = 0.0, *, paused: bool = False) -> ProviderError:
        limits = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.limits if value is not None)
        held = "has asked to wait" if paused else f"is at the limits set for it here ({limits or 'calls in flight'})"
        message = f"`{self.name}` {held}; {why}"
        if expected_s:
            message += f"; the wait would be about {expected_s:.3g} s"
        return ProviderError(Failure("rate_limit", message, code="queue_too_long", retry_after_s=expected_s or None))

    def _pump(self) -> None:
        """Grants all that can start now; sets the timer for the next opening."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while any(self._waiting):
            now = time.monotonic()
            waiter, wait = None, self._opens_in_s(now)
            if not wait:  # looking through the queues is only worth it then
                waiter, wait = self._next(now)
            if waiter and not wait:
                self._remove(waiter)
                waiter.granted.set_result(self._grant(waiter.model, waiter.tokens, now))
            else:
                if wait < math.inf:
                    self._timer = asyncio.get_running_loop().call_later(wait, self._pump)
                return

    def _next(self, now: float) -> tuple[_Waiter | None, float]:
        """The waiter to serve next, a paused model's aside, and how long until it can start."""
        first, pause = None, math.inf
        for model, queue in list(self._queues.items()):
            while (waiter := queue.head()) and waiter.granted.done():  # cancelled, its task has not run yet
                self._remove(waiter)
            if waiter is None:
                continue
            if held := self._held_s(model, waiter.tokens, now):
                pause = min(pause, held)
            elif first is None or (waiter.priority, waiter.number) < (first.priority, first.number):
                first = waiter
        if first is None:
            return None, pause
        # When a pause ends, its model's calls may be the first, and small enough to start before this one.
        return first, min(pause, self._room_s(first.tokens, now))


def _said(allowance: QuotaEstimate | None) -> Left:
    return allowance.said if allowance else NOT_REPORTED


_Account = tuple[str, str | None, str | None]
"""Provider, group, and the digest of a caller's own key."""


class LimiterRegistry:
    """Every limiter in use: one an account and limit group, made at first use."""

    def __init__(self, cap: InFlightCap, *, max_waiting: int, max_caller_limiters: int = 1024) -> None:
        self._cap, self._max_waiting, self._most_guests = cap, max_waiting, max_caller_limiters
        self._own: dict[_Account, Limiter] = {}
        self._guests: OrderedDict[_Account, Limiter] = OrderedDict()

    def get(self, provider: str, limits: LimitsRow, group: str | None, digest: str | None = None) -> Limiter:
        """The limiter of an account; `digest` names a caller's own key, whose limits are his, not ours."""
        known = self._guests if digest else self._own
        key = (provider, group, digest)
        limiter = known.get(key)
        if limiter is None:
            name = f"{provider}/{group}" if group else provider
            of_group = group is not None
            limiter = known[key] = Limiter(name, limits, self._cap, max_waiting=self._max_waiting, is_group=of_group)
            if len(self._guests) > self._most_guests:
                self._forget_idle_guest()
        return limiter

    def __iter__(self) -> Iterator[Limiter]:
        """The operator's own accounts; a caller's are nobody else's to see."""
        return iter(self._own.values())

    def find(self, provider: str, group: str | None) -> Limiter | None:
        """The operator's own account; `None`: nothing was asked of it yet."""
        return self._own.get((provider, group, None))

    def list_caller_limiters(self, provider: str) -> list[Limiter]:
        """Those of callers' own keys there, nameless."""
        return [limiter for key, limiter in self._guests.items() if key[0] == provider]

    def _forget_idle_guest(self) -> None:
        idle = next((key for key, limiter in self._guests.items() if limiter.is_idle), None)
        if idle is not None:
            del self._guests[idle]
