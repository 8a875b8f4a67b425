"""Limits of one provider account: which call starts now, and how long another one waits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from fanout.config.providers_file import LimitsRow
from fanout.core.errors import ProviderError
from fanout.core.rate_limits import RateLimitStatus
from fanout.core.schema import Failure
from fanout.limits.circuits import Circuits
from fanout.limits.counted_calls import CountedCalls
from fanout.limits.expected_waits import ExpectedWaits
from fanout.limits.pauses import Hold, Pauses
from fanout.limits.queue import Permit, Priority, Waiter, WaitingCalls
from fanout.limits.queue_shares import QueueShares
from fanout.limits.shared.limiter_port import LimiterPort
from fanout.limits.shared.share import ProcessShare
from fanout.limits.token_estimates import CallSize, TokenEstimates
from fanout.limits.upstream_quota import LimitReport, QuotaTable

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """Figures of one limiter at one moment, for `/metrics` and `/v1/providers`."""

    in_flight: int
    waiting: int
    waiting_batch: int
    paused_s: float
    paused_models: tuple[str, ...]
    open_circuits: int
    processes: int | None = None
    """That share these limits now, this one included; `None`: it shares none with others, or holds nothing at present."""
    is_alone: bool = False
    """The store through which they share is away."""


class InFlightCap:
    """The bound on calls in flight over all accounts, which keeps them below the limit on open files."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        # A dict as an ordered set: accounts are woken in the order in which they came.
        self._pumps: dict[Callable[[], None], None] = {}

    def has_room(self, pump: Callable[[], None]) -> bool:
        """Return whether one more call may start; if not, `pump` is called once when one ends."""
        if self.used < self.limit:
            return True
        self._pumps[pump] = None
        return False

    def release(self) -> None:
        """Free one place and wake those that waited for it."""
        self.used -= 1
        while self._pumps and self.used < self.limit:
            pump = next(iter(self._pumps))
            del self._pumps[pump]
            pump()


class Limiter:
    """The limits of one account, or of one group of models in it: those set here, and those that the upstream reports.

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
        share: ProcessShare | None = None,
    ) -> None:
        self.name, self.limits, self.is_forgotten = name, limits, False  # forgotten: calls to come need another limiter
        self.counts_tokens = limits.tokens_per_minute is not None
        """Whether permits depend on the tokens that a call may use."""
        self.concurrency: float = limits.concurrency or math.inf
        """Calls in flight at once."""
        self.in_flight = 0
        self._cap = cap or InFlightCap(2**31)
        self.share = share
        self.counted = CountedCalls(limits, period_s, share)
        """What these limits count; each call to be counted when its request leaves."""
        self._pauses = Pauses()
        self.circuits = Circuits(limits.circuit)
        self._quotas = QuotaTable(is_group=is_group)
        self._waiting = WaitingCalls(self)
        self.shares = QueueShares(max_waiting)
        self._expected = ExpectedWaits(self, self._pauses, self._quotas, self.counted, self._waiting, max_waiting)
        self._estimates = TokenEstimates(limits.tokens_per_minute)
        if share:
            share.limiter = LimiterPort(self, self._waiting, self._pauses, self._estimates)

    def configure(self, limits: LimitsRow) -> None:
        """Set other limits; calls in flight and what was counted count on."""
        self.limits, self.concurrency = limits, limits.concurrency or math.inf
        self.counts_tokens = self.counts_tokens or limits.tokens_per_minute is not None
        self.counted.configure(limits)
        self._estimates.set_limit(limits.tokens_per_minute)
        self.circuits.configure(limits.circuit)
        self._waiting.pump()

    def try_acquire(self, model: str, size: CallSize | None, now: float) -> Permit | None:
        """Return a permit if a call may start now; nearly every call starts here, without a place in the queue."""
        if self._waiting.total or self._compute_wait_s(model, size, now):
            return None
        return self.grant(model, size, now)

    async def acquire(self, model: str, size: CallSize | None = None, *, priority: Priority, deadline: float) -> Permit:
        """Wait for a place, in order of priority and arrival. Tokens are estimated, until `release` reports the usage.

        Raises:
            ProviderError: `rate_limit`: the wait would outlast the deadline (`time.monotonic`) or has, or the queue is full.
        """
        now = time.monotonic()
        if (permit := self.try_acquire(model, size, now)) is not None:
            return permit
        if priority is Priority.INTERACTIVE and (unavailable := self.circuits.refuse(self.name, model, now)):
            raise ProviderError(unavailable)
        least = self._estimates.compute_least(size)
        if vain := self._expected.find_refusal(model, least, priority, now, deadline):
            raise _build_refusal(self, *vain)
        waiter = self._waiting.add(model, size, least, priority)
        try:
            async with asyncio.timeout(deadline - now):
                return await waiter.granted
        except TimeoutError:
            self._abandon(waiter)
            raise _build_refusal(self, f"the deadline came after {deadline - now:.3g} s of waiting") from None
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise

    def release(
        self, permit: Permit, input_tokens: int | None = None, output_tokens: int | None = None, *, was_sent: bool = True
    ) -> None:
        """Free the place and replace the estimated tokens by the real usage, where it is known.

        A call that has not been counted counts from now on, unless it is certain that nothing `was_sent`.
        """
        self.in_flight -= 1
        permit.quota.confirm(permit.started)
        for circuit in permit.probed:  # else, after a probe that was cancelled, nobody would probe again
            circuit.is_probing = False
        used = None
        if self.counts_tokens and input_tokens is not None and output_tokens is not None:
            used = input_tokens + output_tokens
            self._estimates.learn(permit.size, input_tokens, output_tokens)
        self.counted.end(permit, used, was_sent=was_sent)
        # The cap first, because other accounts may have waited for it longer than this account.
        self._cap.release()
        self._waiting.pump()

    def record_headers(self, permit: Permit, rate: RateLimitStatus) -> None:
        """Record the remaining quota from the headers of this attempt's answer."""
        permit.quota.read(time.monotonic(), rate, permit.started)
        self._quotas.has_readings = True
        # The upstream limits tokens although no limit is configured, so calls are estimated from now on.
        self.counts_tokens = self.counts_tokens or permit.quota.tokens is not None
        self._waiting.pump()  # the report may allow more calls than expected

    def pause(self, model: str | None, seconds: float, reason: str = "rate_limit") -> None:
        """Hold every call of `model` (`None`: of the whole account) for `seconds`, at most a minute; never shorten a pause."""
        end = self._pauses.add(time.monotonic(), model, seconds, reason)
        if self.share:
            self.share.tell(model, end, reason)
        self._waiting.pump()

    def record_failure(self, model: str | None, reason: str) -> bool:
        """Count a failed attempt of a model (`None`: for want of a connection); return whether it has opened the circuit."""
        now = time.monotonic()
        has_opened = self.circuits.record_failure(model, reason, now)
        if model in self.circuits.open and (unavailable := self.circuits.refuse(self.name, model or "", now)):
            self._waiting.refuse_interactive(model, unavailable)
        return has_opened

    @property
    def has_queue(self) -> bool:
        """Calls are waiting."""
        return self._waiting.total > 0

    @property
    def is_idle(self) -> bool:
        """No call is in flight or waiting."""
        return not self.in_flight and not self._waiting.total

    def snapshot(self) -> LimiterSnapshot:
        """Return the figures of this moment."""
        return _take_snapshot(self, self._waiting, self._pauses)

    def list_holds(self) -> list[Hold]:
        """Return the current holds and their reasons; `requests_left` and `tokens_left` come from the upstream's headers."""
        return self._pauses.list_holds(now := time.monotonic()) + self._quotas.list_holds(now)

    def list_reports(self) -> list[LimitReport]:
        """Return the upstream's last report on each model; empty where it reports nothing."""
        return self._quotas.list_reports(time.monotonic())

    def grant(self, model: str, size: CallSize | None, now: float) -> Permit:
        """Start a call."""
        tokens = 0 if size is None else self._estimates.compute_reservation(size, self.in_flight)
        self.in_flight += 1
        self._cap.used += 1
        self.counted.reserve(tokens)
        quota = self._quotas.get(model)
        permit = Permit(quota, quota.start(now, tokens), size)
        if self.share:
            self.share.note_start(self.in_flight)
        if self.circuits.open:
            permit.probed = self.circuits.begin_probe(model)
        return permit

    def compute_start_wait_s(self, now: float) -> float:
        """Return the wait until any call could start; infinite while all places are taken."""
        # `has_room` keeps the pump, so that the end of another account's call wakes this one.
        if self.in_flight >= self.concurrency or not self._cap.has_room(self._waiting.pump):
            return math.inf
        if self.share and not self.share.has_place(self.in_flight, now):
            return math.inf
        wait = self._compute_held_s(None, now) if self._pauses.ends or self.circuits.open else 0.0
        return max(wait, self.counted.compute_start_wait_s(now)) if self.counted.starts else wait

    def compute_hold_s(self, model: str, size: CallSize | None, now: float) -> float:
        """Return the wait of this model's calls for reasons that do not affect other models."""
        wait = self._compute_held_s(model, now) if self._pauses.ends or self.circuits.open else 0.0
        if not self._quotas.is_group and (quota := self._quotas.find(model)):
            wait = max(wait, quota.compute_wait_s(now, self._estimates.compute_reservation(size, self.in_flight)))
        return wait

    def compute_room_wait_s(self, size: CallSize | None, now: float) -> float:
        """Return the wait until a call's tokens fit, for reasons that affect all models."""
        tokens = self._estimates.compute_reservation(size, self.in_flight)
        wait = self.counted.compute_token_wait_s(now, tokens)
        if self._quotas.is_group and (quota := self._quotas.find(None)):
            wait = max(wait, quota.compute_wait_s(now, tokens))
        return wait

    def _compute_held_s(self, model: str | None, now: float) -> float:
        return max(self._pauses.compute_wait_s(now, model), self.circuits.compute_wait_s(now, model))

    def _abandon(self, waiter: Waiter) -> None:
        """Remove a waiter whose task was cancelled."""
        if waiter.granted.cancelled():
            self._waiting.remove(waiter)
            self._waiting.pump()
        elif not waiter.granted.exception():  # granted at the same moment: without a release the place would be lost
            self.release(waiter.granted.result(), was_sent=False)

    def _compute_wait_s(self, model: str, size: CallSize | None, now: float) -> float:
        """Return the wait until this call could start if no other waited; infinite while all places are taken."""
        wait = self.compute_start_wait_s(now)
        # Tested first, because most accounts have no pauses, readings or token limits.
        if self._pauses.ends or self._quotas.has_readings or self.circuits.open:
            wait = max(wait, self.compute_hold_s(model, size, now))
        return max(wait, self.compute_room_wait_s(size, now)) if self.counts_tokens or self._quotas.is_group else wait


def _take_snapshot(limiter: Limiter, waiting: WaitingCalls, pauses: Pauses) -> LimiterSnapshot:
    now, share = time.monotonic(), limiter.share
    return LimiterSnapshot(
        in_flight=limiter.in_flight,
        waiting=waiting.total,
        waiting_batch=waiting.by_priority[Priority.BATCH],
        paused_s=pauses.compute_wait_s(now, None),
        paused_models=tuple(hold.model for hold in pauses.list_holds(now) if hold.model is not None),
        open_circuits=len(limiter.circuits.open),
        processes=share.members if share and share.is_member else None,
        is_alone=share is not None and share.is_alone,
    )


def _build_refusal(limiter: Limiter, why: str, expected_s: float = 0.0, is_held: bool = False) -> ProviderError:
    limits = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in limiter.limits if type(value) is int)
    held = "has requested a wait" if is_held else f"is at the limits set for it here ({limits or 'calls in flight'})"
    message = f"`{limiter.name}` {held}; {why}"
    if expected_s:
        message += f"; the wait would be about {expected_s:.3g} s"
    return ProviderError(Failure("rate_limit", message, code="queue_too_long", retry_after_s=expected_s or None))
