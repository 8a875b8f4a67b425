"""Circuit breakers of one account: after sustained failures nothing more is sent, but for one probe at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fanout.config.providers_file import CircuitRow
from fanout.core.schema import UNAVAILABLE_CODE, Failure

MAX_PAUSE_BETWEEN_FAILURES_S = 60.0
"""Failures further apart are not sustained: counting begins anew."""
MAX_CIRCUITS = 1000
"""Of one account. Callers choose the names of models: the oldest circuit is dropped."""

Scope = str | None
"""The model whose calls are held; `None`: those of the whole account, whose host cannot be reached."""


@dataclass(slots=True)
class Circuit:
    """Failures in a row, between which nothing was answered."""

    failures: int
    first_at: float
    last_at: float
    reason: str
    """Code or kind of the last failure."""
    probe_at: float | None = None
    """Time of the next probe; `None`: the circuit is closed, and all calls are sent."""
    is_probing: bool = False


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """An open circuit at one moment."""

    model: Scope
    failures: int
    failing_s: float
    """Time since the first of the failures."""
    probe_in_s: float | None
    """Time until the next call is sent as a probe; `None`: a probe is in flight."""
    reason: str


class Circuits:
    """The circuits of one account, by model. All are closed, and nothing is kept, as long as calls are answered."""

    def __init__(self, row: CircuitRow) -> None:
        self.row = row
        self.failing: dict[Scope, Circuit] = {}
        """Those with failures since the last answer."""
        self.open: dict[Scope, Circuit] = {}
        """Those of them that are open."""

    def configure(self, row: CircuitRow) -> None:
        """Set other bounds; open circuits stay open, unless none opens any more."""
        self.row = row
        if not row.failures:
            self.failing.clear()
            self.open.clear()

    def record_failure(self, scope: Scope, reason: str, now: float) -> bool:
        """Count a failed attempt; return whether it has opened the circuit."""
        circuit = self.failing.get(scope)
        if circuit is None or (circuit.probe_at is None and now - circuit.last_at > MAX_PAUSE_BETWEEN_FAILURES_S):
            self.failing.pop(scope, None)
            circuit = self.failing[scope] = Circuit(0, now, now, reason)
            self._drop_oldest()
        circuit.failures, circuit.last_at, circuit.reason = circuit.failures + 1, now, reason
        if circuit.probe_at is not None:
            if circuit.is_probing:
                circuit.is_probing, circuit.probe_at = False, now + self.row.probe_after_s
            return False
        # Both: a burst of calls may fail at once over a hiccup, and a few rows of a job by what they hold.
        if not self.row.failures or circuit.failures < self.row.failures or now - circuit.first_at < self.row.sustained_s:
            return False
        circuit.probe_at = now + self.row.probe_after_s
        self.open[scope] = circuit
        return True

    def record_answer(self, scope: Scope) -> bool:
        """Forget the failures before an answer; return whether the circuit was open."""
        self.failing.pop(scope, None)
        return self.open.pop(scope, None) is not None

    def compute_wait_s(self, now: float, scope: Scope) -> float:
        """Return the wait until a call of exactly this scope may be sent; infinite while a probe is in flight."""
        circuit = self.open.get(scope)
        if circuit is None or circuit.probe_at is None:
            return 0.0
        return math.inf if circuit.is_probing else max(circuit.probe_at - now, 0.0)

    def begin_probe(self, model: str) -> tuple[Circuit, ...]:
        """Return the open circuits that a call which is sent now probes."""
        probed = tuple(circuit for scope in (None, model) if (circuit := self.open.get(scope)))
        for circuit in probed:
            circuit.is_probing = True
        return probed

    def refuse(self, name: str, model: str, now: float) -> Failure | None:
        """Return the failure of a call that an open circuit keeps from being sent; `None`: it may be sent."""
        for scope in (None, model):
            if wait_s := self.compute_wait_s(now, scope):
                circuit = self.open[scope]
                what = f"`{name}`" if scope is None else f"`{scope}` of `{name}`"
                retry_after_s = self.row.probe_after_s if wait_s == math.inf else wait_s
                when = "is being tried again now" if wait_s == math.inf else f"is tried again in {wait_s:.3g} s"
                sentence = f"{what} has failed {circuit.failures} times in a row (last: {circuit.reason}) and {when}"
                return Failure("server", sentence, code=UNAVAILABLE_CODE, retry_after_s=retry_after_s)
        return None

    def list_open(self) -> Iterator[OpenCircuit]:
        """Yield the open circuits."""
        now = time.monotonic()
        for scope, circuit in self.open.items():
            wait_s = self.compute_wait_s(now, scope)
            probe_in_s = None if wait_s == math.inf else wait_s
            yield OpenCircuit(scope, circuit.failures, now - circuit.first_at, probe_in_s, circuit.reason)

    def _drop_oldest(self) -> None:
        if len(self.failing) > MAX_CIRCUITS:
            self.record_answer(next(iter(self.failing)))
