"""How the calls of a request ended: for its log line, and for the history of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from aiohttp import web

from fanout.core.schema import Outcome, Retry
from fanout.server.lifecycle import REQUEST_ID, STORE
from fanout.server.request_body import RAW_BODY
from fanout.store.history.records import ComparisonRecord

CLIENT_LEFT = 499
"""nginx's status for it; nobody receives it, the log, the figures and the history do."""


class RequestOutcomes:
    """How the calls of one request ended, the cancelled ones too, which their request does not live to see."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.over = False
        """What a task does that outlives its request is no longer the request's."""


REQUEST_OUTCOMES: ContextVar[RequestOutcomes | None] = ContextVar("seen", default=None)


def collect_outcome(event: Outcome | Retry) -> None:
    """An observer of the Dispatcher: keeps a call's end for its request."""
    seen = REQUEST_OUTCOMES.get()
    if seen and not seen.over and isinstance(event, Outcome):
        seen.outcomes.append(event)


@dataclass(slots=True)
class PendingComparison:
    """A request whose calls are a comparison."""

    id: str
    created: float
    """Unix seconds."""
    stream: bool
    metadata: Mapping[str, str] = field(default_factory=dict)
    recorded: bool = False


COMPARISON = web.RequestKey("comparison", PendingComparison)


def begin_comparison(request: web.Request, id_: str, created: float, *, stream: bool | None, metadata: object = None) -> None:
    """Has a request's calls recorded when it has ended, whichever way it ends.

    Args:
        metadata: the caller's, if it is what such a thing may be: up to 16 short strings by name.
    """
    if STORE in request.app and request.app[STORE].history.mode != "off":
        words = _words(metadata) if isinstance(metadata, dict) else {}
        request[COMPARISON] = PendingComparison(id_, created, bool(stream), words)


def record_comparison(request: web.Request, status: int, seconds: float, seen: RequestOutcomes) -> None:
    """A request has ended.

    Args:
        status: HTTP's; `CLIENT_LEFT` where nobody received it.
    """
    comparison = request.get(COMPARISON)
    if comparison is None or comparison.recorded or not seen.outcomes:
        return
    comparison.recorded = True
    outcomes = sorted(seen.outcomes, key=lambda outcome: outcome.call.index)
    resource, history = request.match_info.route.resource, request.app[STORE].history
    history.record(
        ComparisonRecord(
            number=history.number(comparison.created),
            id=comparison.id,
            created=comparison.created,
            account_id=outcomes[0].call.account_id,
            request_id=request[REQUEST_ID],
            path=resource.canonical if resource else "",
            stream=comparison.stream,
            status=status,
            total_s=seconds,
            metadata=comparison.metadata,
            body=request.get(RAW_BODY, b""),
            outcomes=outcomes,
        )
    )


def _words(metadata: Mapping[object, object]) -> dict[str, str]:
    return {
        name: value
        for name, value in list(metadata.items())[:16]
        if isinstance(name, str) and isinstance(value, str) and 0 < len(name) <= 64 and len(value) <= 512
    }
