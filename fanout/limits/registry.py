"""All limiters of a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from fanout.config.providers_file import LimitsRow
from fanout.limits.limiter import MINUTE_S, InFlightCap, Limiter
from fanout.limits.shared.rules import SharedRules, build_rules
from fanout.limits.shared.share import ProcessShare

AccountKey = tuple[str, str | None, str | None]
"""Provider, limit group, and the hash of a caller-supplied key."""


class Sharing(Protocol):
    """The store through which processes share limits."""

    def join(self, provider: str, group: str | None, digest: str | None, rules: SharedRules) -> ProcessShare:
        """Return this process's part of an account."""
        ...

    def leave(self, share: ProcessShare) -> None:
        """Give back what an account has that is used no longer."""
        ...


class LimiterRegistry:
    """One limiter for each account and limit group, made at its first use."""

    def __init__(
        self,
        cap: InFlightCap,
        *,
        max_waiting: int,
        max_caller_limiters: int = 1024,
        sharing: Sharing | None = None,
        period_s: float = MINUTE_S,
    ) -> None:
        self._cap, self._max_waiting, self._max_caller_limiters = cap, max_waiting, max_caller_limiters
        self.sharing, self._period_s = sharing, period_s
        self._own: dict[AccountKey, Limiter] = {}
        self._callers: dict[AccountKey, Limiter] = {}

    def get(self, provider: str, limits: LimitsRow, group: str | None, digest: str | None = None) -> Limiter:
        """Return the limiter of an account. `digest`: hash of a caller-supplied key; such keys get their own limiter."""
        limiters = self._callers if digest else self._own
        key = (provider, group, digest)
        limiter = limiters.get(key)
        if limiter is None:
            name = f"{provider}/{group}" if group else provider
            is_group = group is not None
            rules = build_rules(limits, self._period_s)
            limiter = limiters[key] = Limiter(
                name,
                limits,
                self._cap,
                max_waiting=self._max_waiting,
                period_s=self._period_s,
                is_group=is_group,
                share=self.sharing.join(provider, group, digest, rules) if self.sharing else None,
            )
            if len(self._callers) > self._max_caller_limiters:
                self._forget_idle_caller()
        return limiter

    def configure(self, limits: Mapping[str, LimitsRow]) -> None:
        """Set the limits of accounts by provider; what was counted stays. Those without a provider go once they are idle."""
        for limiters in (self._own, self._callers):
            for key, limiter in list(limiters.items()):
                if key[0] in limits:
                    limiter.configure(limits[key[0]])
                elif limiter.is_idle:
                    self._forget(limiters, key)

    def __iter__(self) -> Iterator[Limiter]:
        """Iterate over the limiters of the operator's own accounts; limiters of callers' keys are excluded for privacy."""
        return iter(self._own.values())

    def find(self, provider: str, group: str | None) -> Limiter | None:
        """Return the limiter of the operator's own account; `None` before its first call."""
        return self._own.get((provider, group, None))

    def list_caller_limiters(self, provider: str) -> list[Limiter]:
        """Return the limiters of caller-supplied keys at a provider."""
        return [limiter for key, limiter in self._callers.items() if key[0] == provider]

    def _forget_idle_caller(self) -> None:
        # A limiter in use is kept: a new one would not know of its calls in flight.
        idle = next((key for key, limiter in self._callers.items() if limiter.is_idle), None)
        if idle is not None:
            self._forget(self._callers, idle)

    def _forget(self, limiters: dict[AccountKey, Limiter], key: AccountKey) -> None:
        limiter = limiters.pop(key)
        limiter.is_forgotten = True
        if self.sharing and limiter.share:
            self.sharing.leave(limiter.share)
