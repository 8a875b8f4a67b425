"""Outcomes of a request's calls, for its log line and for the history of comparisons."""

from __future__ import annotations

from contextvars import ContextVar
from operator import attrgetter

from aiohttp import web

from fanout.core.schema import Outcome, Retry
from fanout.server.lifecycle import REQUEST_ID, STORE
from fanout.server.request_body import RAW_BODY
from fanout.store.history.records import ComparisonRecord

PLACE = attrgetter("call.index")


class RequestOutcomes:
    """Outcomes of one request's calls, including calls that are cancelled after their request."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        # Set once the request is logged: a task that outlives it inherits the context variable, but reports nothing more.
        self.is_closed = False

    def close(self) -> None:
        """Take no further outcomes, and put these in the order of their calls: they came in the order of their ends."""
        self.is_closed = True
        self.outcomes.sort(key=PLACE)


# A context variable, because the Dispatcher reports outcomes from tasks that know nothing of HTTP; they inherit it.
REQUEST_OUTCOMES: ContextVar[RequestOutcomes | None] = ContextVar("request_outcomes", default=None)


def collect_outcome(event: Outcome | Retry) -> None:
    """Add the outcome of a call to those of its request. An observer of the Dispatcher."""
    collected = REQUEST_OUTCOMES.get()
    if collected and not collected.is_closed and isinstance(event, Outcome):
        collected.outcomes.append(event)


COMPARISON = web.RequestKey("comparison", ComparisonRecord)
"""The comparison that goes into the history when its request has ended."""


def begin_comparison(
    request: web.Request,
    id_: str,
    created: float,
    *,
    stream: bool | None,
    metadata: object = None,
    keeps_texts: bool = True,
) -> None:
    """Have the calls of a request recorded at its end, whichever way it ends; without texts if its caller wants none kept."""
    store = request.app.get(STORE)
    if store is None or store.history.mode == "off":
        return
    resource = request.match_info.route.resource
    # By position: it is made for every request, and by name that takes longer.
    request[COMPARISON] = ComparisonRecord(
        store.history.create_number(created),
        id_,
        created,
        request[REQUEST_ID],
        "" if resource is None else resource.canonical,
        bool(stream),
        # In a chat body the caller's metadata may be anything, which is passed on: here up to 16 short strings are kept.
        _keep_metadata(metadata) if metadata else {},
        request.get(RAW_BODY, b""),
        keeps_texts,
    )


def _keep_metadata(metadata: object) -> dict[str, str]:
    pairs = list(metadata.items())[:16] if isinstance(metadata, dict) else ()
    strings = [(name, value) for name, value in pairs if isinstance(name, str) and isinstance(value, str)]
    return {name: value for name, value in strings if 0 < len(name) <= 64 and len(value) <= 512}


def record_comparison(request: web.Request, status: int, total_s: float, collected: RequestOutcomes) -> None:
    """Hand a comparison to the history, once, if any of its calls has an outcome."""
    comparison: ComparisonRecord | None = request.get(COMPARISON)
    # A request with an idempotency key ends twice, in its shared run and in its own middleware: the first end counts.
    # Without outcomes nothing was called: the request was refused, or a dry run.
    if comparison is None or comparison.status or not collected.outcomes:
        return
    comparison.end(status, total_s, collected.outcomes)
    try:
        request.app[STORE].history.record(comparison)
    finally:
        # A connection that is kept open keeps its last request.
        comparison.outcomes = ()
