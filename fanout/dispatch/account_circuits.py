"""Circuits of accounts: the ends of attempts that count as failures of a host or a model, and those that count as answers."""

from __future__ import annotations

from fanout.core.schema import SHORTAGE_CODES, Completion, Failure, FailureKind
from fanout.dispatch.in_flight import InFlightCall
from fanout.dispatch.retries import TRANSIENT_STATUSES, Result
from fanout.limits.circuits import Scope
from fanout.limits.limiter import Limiter
from fanout.observability.logs import log
from fanout.providers.transport.connection_errors import NEVER_SENT

UNTOLD_KINDS: frozenset[FailureKind] = frozenset({"cancelled", "internal", "timeout"})
"""Kinds of failures that tell nothing of a host: they may be ours, the caller's, or those of one long answer."""


def record_end(limiter: Limiter, running: InFlightCall, result: Result | None) -> None:
    """Count the end of an attempt for the circuits of its account."""
    circuits, model = limiter.circuits, running.call.target.model or ""
    if isinstance(result, Failure):
        failed, answered = _judge(running, result, model)
        for scope in failed:
            if limiter.record_failure(scope, reason := result.code or result.kind):
                log.warning("circuit.opened", account=limiter.name, model=scope, reason=reason)
    else:
        answered = [None, model] if isinstance(result, Completion) else []
    for scope in answered:
        if circuits.record_answer(scope):
            log.info("circuit.closed", account=limiter.name, model=scope)


def _judge(running: InFlightCall, failure: Failure, model: str) -> tuple[list[Scope], list[Scope]]:
    """Return the scopes that have failed and those that have answered."""
    if failure.kind in UNTOLD_KINDS or failure.code in SHORTAGE_CODES or running.has_delivered:
        return [], []
    if failure.code in NEVER_SENT:
        return [None], []
    is_outage = failure.status is None or (failure.status >= 500 and failure.status in TRANSIENT_STATUSES)
    if failure.kind not in ("network", "server") or not is_outage:
        return [], [None, model]  # also a refusal comes from a host that works
    # One model's failures hold no other model; but its status tells that the host can be reached.
    return [model], [] if failure.status is None else [None]
