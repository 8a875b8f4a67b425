"""Outcomes of a request's calls, for its log line and for the history of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from aiohttp import web

from fanout.core.schema import Outcome, Retry
from fanout.server.lifecycle import REQUEST_ID, STORE
from fanout.server.request_body import RAW_BODY
from fanout.store.history.records import ComparisonRecord

if TYPE_CHECKING:  # the database is not loaded where there is none
    from fanout.store.history.recorder import History

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


@dataclass(slots=True)
class BegunComparison:
    """A comparison whose request is being answered."""

    history: History
    id: str
    created: float
    stream: bool
    metadata: Mapping[str, str]
    keeps_texts: bool
    is_recorded: bool = False


COMPARISON = web.RequestKey("comparison", BegunComparison)
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
    if store is not None and store.history.mode != "off":
        # All else is found at the end, where the same is done for several requests at once.
        # A connection that is kept open keeps its last request, and would keep whatever a caller may send as metadata.
        pairs = _keep_metadata(metadata) if metadata else {}
        request[COMPARISON] = BegunComparison(store.history, id_, created, bool(stream), pairs, keeps_texts)


def record_comparison(request: web.Request, route: str, status: int, total_s: float, collected: RequestOutcomes) -> None:
    """Hand a comparison to the history, once, if any of its calls has an outcome."""
    begun: BegunComparison | None = request.get(COMPARISON)
    outcomes = collected.outcomes
    # A request with an idempotency key ends twice, in its shared run and in its own middleware: the first end counts.
    # Without outcomes nothing was called: the request was refused, or a dry run.
    if begun is None or begun.is_recorded or not outcomes:
        return
    begun.is_recorded = True
    history = begun.history
    # By position: it is made for every request, and by name that takes longer.
    history.record(
        ComparisonRecord(
            history.create_number(begun.created),
            begun.id,
            begun.created,
            outcomes[0].call.account_id,
            request[REQUEST_ID],
            route,
            begun.stream,
            status,
            total_s,
            begun.metadata,
            request.get(RAW_BODY, b""),
            outcomes,
            begun.keeps_texts,
        )
    )


def _keep_metadata(metadata: object) -> dict[str, str]:
    # In a chat body the caller's metadata may be anything, which is passed on: here up to 16 short strings are kept.
    pairs = list(metadata.items())[:16] if isinstance(metadata, dict) else ()
    strings = [(name, value) for name, value in pairs if isinstance(name, str) and isinstance(value, str)]
    return {name: value for name, value in strings if 0 < len(name) <= 64 and len(value) <= 512}
