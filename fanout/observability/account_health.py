"""Recent health of each account: an observer that keeps the calls of the last minutes and sums them on request."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fanout.core.schema import HOOK_FAILED_CODE, HOOK_REFUSED_CODE, SHORTAGE_CODES, Failure, Outcome, Retry

WINDOW_S = 300.0
MAX_CALLS = 1000
"""Of one account; the oldest are dropped."""

OWN_CODES = SHORTAGE_CODES | {HOOK_REFUSED_CODE, HOOK_FAILED_CODE}
"""Codes of failures that are of this process."""

Account = tuple[str, str | None, bool]
"""Provider, limit group, and whether the calls bore callers' own keys, which are counted together."""


class _EndedCall(NamedTuple):
    at: float
    kind: str | None
    """Kind of the failure; `None`: the call was answered."""
    call_s: float | None
    first_token_s: float | None


@dataclass(frozen=True, slots=True)
class AccountHealth:
    """The calls of an account that ended within `WINDOW_S`. Times in seconds; `None` where no call has one."""

    calls: int
    answered: int
    failures: Mapping[str, int]
    error_rate: float | None
    """Share of failures among the calls that nobody cancelled."""
    median_s: float | None
    """Median time of the answered attempts, from start to last byte."""
    p95_s: float | None
    median_first_token_s: float | None


class RecentCalls:
    """The recent calls of every account. Accounts come from the configuration, so there are not many."""

    def __init__(self) -> None:
        # Bounded by number, not by age: a busy account would hold minutes of calls.
        self._ended: dict[Account, deque[tuple[float, str | None, float | None, float | None]]]
        self._ended = defaultdict(lambda: deque(maxlen=MAX_CALLS))

    def observe(self, *events: Outcome | Retry) -> None:
        """Record the ends of calls, as an observer of the Dispatcher."""
        now = time.monotonic()
        for event in events:
            call, target = event.call, event.call.target
            if isinstance(event, Retry) or call.refusal is not None or target.provider is None:
                continue
            result, timing, kind = event.result, event.timing, None
            if isinstance(result, Failure):
                if result.code in OWN_CODES:
                    continue  # the account is not to blame
                kind = result.kind
            elif not timing.attempts:
                continue  # nothing was sent: an answer of zero tokens
            # A plain tuple: it is named when it is read, which a thousandth of them ever are.
            ended = (now, kind, timing.call_s, timing.first_token_s)
            self._ended[target.provider, target.limit_group, call.credential is not None].append(ended)

    def summarize(self, accounts: Iterable[Account]) -> AccountHealth:
        """Return the health of several accounts, summed as one."""
        since = time.monotonic() - WINDOW_S
        ended = (_EndedCall._make(call) for account in accounts for call in self._ended.get(account, ()))
        return _summarize([call for call in ended if call.at >= since])


def _summarize(calls: Sequence[_EndedCall]) -> AccountHealth:
    failures: Counter[str] = Counter(call.kind for call in calls if call.kind)
    judged = len(calls) - failures["cancelled"]
    answered = len(calls) - failures.total()
    times = sorted(call.call_s for call in calls if call.kind is None and call.call_s is not None)
    first = sorted(call.first_token_s for call in calls if call.kind is None and call.first_token_s is not None)
    return AccountHealth(
        calls=len(calls),
        answered=answered,
        failures=failures,
        error_rate=round((judged - answered) / judged, 4) if judged else None,
        median_s=_quantile(times, 0.5),
        p95_s=_quantile(times, 0.95),
        median_first_token_s=_quantile(first, 0.5),
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of all values do not exceed."""
    # Nearest rank, computed in whole numbers: a product of floating point may end just above it.
    return ordered[max(-(-int(share * 100) * len(ordered) // 100) - 1, 0)] if ordered else None
