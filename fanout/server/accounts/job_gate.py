"""The limits of a stored key, for the calls of its jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fanout.core.schema import Call, Outcome
from fanout.dispatch.dispatcher import Dispatcher
from fanout.server.accounts import admission
from fanout.server.accounts import limits as key_limits
from fanout.server.accounts.callers import CALLING_ROLES, Caller
from fanout.server.accounts.directory import KeyDirectory
from fanout.server.accounts.ledger import KeyCounts, KeyLedger
from fanout.server.accounts.limits import Demand

ENDED_KEY = "the key that it was made with was revoked, has expired or calls no models; resume it with another one"


@dataclass(slots=True)
class StoredKeyGate:
    """See `KeyGate`. The limits are looked up anew for each call, so that a change counts for jobs that run."""

    key_id: str
    directory: KeyDirectory
    ledger: KeyLedger
    counts: KeyCounts
    dispatcher: Dispatcher
    reason: str | None = None
    _started: dict[int, Demand] = field(default_factory=dict)
    """By `id()` of the call: two rows can contain equal calls."""

    @property
    def has_budget(self) -> bool:
        """See `KeyGate.has_budget`."""
        return (caller := self._find_caller()) is not None and admission.has_budget(caller)

    def restrict(self, call: Call) -> Call:
        """See `KeyGate.restrict`."""
        caller = self._find_caller()
        return admission.restrict_call(caller, self.dispatcher, call) if caller else call

    def reserve(self, cost_usd: float) -> bool:
        """See `KeyGate.reserve`."""
        caller, self.reason = self._find_caller(), None
        if caller is None:
            self.reason = ENDED_KEY
            return False
        if budget := key_limits.find_spent_budget(self.counts, caller.limits, time.time(), cost_usd):
            self.reason = key_limits.explain_budget(budget, self.counts, cost_usd)
            return False
        self.counts.reserved_usd += cost_usd
        return True

    def try_start(self, call: Call) -> float | None:
        """See `KeyGate.try_start`."""
        caller, now = self._find_caller(), time.time()
        if caller is None:  # it had money, and has waited for a place since
            self.reason = ENDED_KEY
            return None
        demand = admission.estimate_call(self.dispatcher, call, has_price=False)
        if wait_s := key_limits.compute_wait_s(self.counts, caller.limits, now, demand):
            return wait_s
        self._started[id(call)] = demand
        admission.reserve(self.counts, now, demand)
        return 0.0

    def settle(self, call: Call | None, reserved_usd: float, outcome: Outcome | None) -> None:
        """See `KeyGate.settle`."""
        started = self._started.pop(id(call), None) if call is not None else None
        demand = Demand(started.tokens, reserved_usd, started.at) if started else Demand(0, reserved_usd, time.time())
        if outcome is None:
            admission.give_back(self.counts, demand)
        else:
            admission.settle(self.counts, demand, outcome, self.dispatcher)
        if started:
            self.counts.in_flight -= 1
        self.ledger.notify()

    def _find_caller(self) -> Caller | None:
        caller = self.directory.find_by_id(self.key_id)
        return caller if caller and caller.role in CALLING_ROLES else None


async def open_gate(directory: KeyDirectory, ledger: KeyLedger, dispatcher: Dispatcher, key_id: str) -> StoredKeyGate:
    """Return the gate of a key; raise `StoreError` if what it has used cannot be read."""
    await dispatcher.upstreams.load_prices()  # else the first price would load them on the event loop
    return StoredKeyGate(key_id, directory, ledger, await ledger.open(key_id), dispatcher)
